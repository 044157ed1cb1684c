"""Objects of one kind in our own namespace, over Kubernetes' REST API, with the account that the pod was given.

    https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/

The token is read for each request: the kubelet replaces it every hour. Calls block: to connect takes `seconds` at most, and so does
each wait until more of the request is sent, or more of the answer comes.
"""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]
TOKEN, AUTHORITY, NAMESPACE = "token", "ca.crt", "namespace"
RBAC = re.compile(r"User .* cannot ")
"""What the API says where rights are missing; admission webhooks answer 403, too, with reasons of their own."""
REASON_LENGTH = 500
"""Characters of what the API says that are told on."""


class NoObject(Exception):
    """There is none of this name."""


class ObjectExists(Exception):
    """There is one of this name already."""


class KubernetesRefused(Exception):
    """The API does not answer, or refuses: the message says why, and what may be done."""


class Objects:
    """Of a group, version and plural, for example ray.io, v1, rayjobs."""

    def __init__(self, url: str, account: Path, group: str, version: str, plural: str, seconds: float) -> None:
        """account: folder with the token, the namespace and the certificate of the API's authority."""
        self.url, self.account, self.seconds = url.rstrip("/"), account, seconds
        self.group, self.version, self.plural = group, version, plural

    def create(self, body: Json) -> Json:
        """Raises ObjectExists and KubernetesRefused."""
        return self._ask("POST", "", body)

    def get(self, name: str) -> Json:
        """Raises NoObject and KubernetesRefused."""
        return self._ask("GET", f"/{name}")

    def list(self, labels: str) -> list[Json]:
        """Those with these labels (`name=value,...`). Raises KubernetesRefused."""
        found: list[Json] = self._ask("GET", "", params={"labelSelector": labels})["items"]
        return found

    def delete(self, name: str) -> None:
        """It is there until everything that belongs to it has gone. Raises NoObject and KubernetesRefused."""
        self._ask("DELETE", f"/{name}", {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"})

    def _ask(self, method: str, path: str, body: Json | None = None, params: dict[str, str] | None = None) -> Json:
        try:
            token = (self.account / TOKEN).read_text().strip()
            namespace = (self.account / NAMESPACE).read_text().strip()
            authority = ssl.create_default_context(cafile=self.account / AUTHORITY) if self.url.startswith("https") else False
            url = f"{self.url}/apis/{self.group}/{self.version}/namespaces/{namespace}/{self.plural}{path}"
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(verify=authority, timeout=self.seconds, trust_env=False) as client:
                answer = client.request(method, url, json=body, params=params, headers=headers)
        except OSError as error:
            raise KubernetesRefused(f"{self.account} is no service account's folder: {error}; mount its token") from error
        except httpx.HTTPError as error:
            raise KubernetesRefused(f"Kubernetes at {self.url} does not answer: {error!r}") from error
        return self._read(method, answer)

    def _read(self, method: str, answer: httpx.Response) -> Json:
        if answer.status_code == HTTPStatus.NOT_FOUND and method != "POST":
            raise NoObject(self.plural)
        if answer.status_code == HTTPStatus.CONFLICT and method == "POST":
            raise ObjectExists(self.plural)
        if not answer.is_success:
            raise KubernetesRefused(f"Kubernetes at {self.url} refuses to {method} {self.plural}: {_why(answer)}")
        found: Json = answer.json()
        return found


def _why(answer: httpx.Response) -> str:
    """The API's own words, and the remedy where it is one of ours."""
    try:
        said = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        said = answer.text
    needs = "; the service account needs create, get, list and delete of rayjobs.ray.io in its namespace"
    remedy = {
        HTTPStatus.UNAUTHORIZED: "; the token of the service account is not valid",
        HTTPStatus.FORBIDDEN: needs if RBAC.search(said) else "",
        HTTPStatus.NOT_FOUND: "; install KubeRay's CRDs",
    }.get(HTTPStatus(answer.status_code), "")
    return f"{answer.status_code} {said[:REASON_LENGTH]}{remedy}"
