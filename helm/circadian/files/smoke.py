"""What `helm test` asks of a Circadian that was just installed. Ends with a sentence where an answer is not what it should be.

The service must be ready, and refuse whoever has no key. With the operator's key (a file; without it that is all) it lists its models, and
of its first deployment, where there is one, what a night would do: a dry run, which begins nothing.
"""

import os
import sys
from pathlib import Path

import httpx

KEY = Path(os.environ.get("CIRCADIAN_SECRETS_FOLDER", "/etc/circadian/secrets")) / "api_key"
NOT_NOW = 409
"""A deployment that is being deleted, for example, cannot sleep."""
NOTHING_MET = "no_eligible_experience"
"""What a deployment answers that has met nothing it does not know: a good one, too."""


def main() -> None:
    with httpx.Client(base_url=os.environ["CIRCADIAN_URL"], timeout=30.0) as client:
        expect(client.get("/readyz"), 200)
        expect(client.get("/v1/models"), 401)
        if not KEY.exists():
            return
        client.headers["Authorization"] = f"Bearer {KEY.read_text().strip()}"
        expect(client.get("/v1/models"), 200)
        deployments = expect(client.get("/v1/deployments"), 200).json()["data"]
        if deployments:
            answer = client.post("/v1/sleeps", json={"deployment": deployments[0]["id"], "dry_run": True})
            if f'"{NOTHING_MET}"' not in answer.text:
                expect(answer, 200, NOT_NOW)


def expect(response: httpx.Response, *statuses: int) -> httpx.Response:
    if response.status_code not in statuses:
        sys.exit(
            f"{response.request.method} {response.request.url.path}: {response.status_code}, not {statuses}: {response.text[:2000]}"
        )
    return response


main()
