"""Values that cannot work are refused before anything is installed, in words that name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import RELEASE, Version, template, values_file

RAYS = f"{RELEASE}-circadian"
"""The RayCluster's name, and so that of the Secret of its token."""
SCHEMA: list[tuple[Any, str, str]] = [
    ({"controler": {}}, "", "controler"),
    ({"ray": {"auth": {"mode": "disabled"}}}, "/ray/auth", "mode"),
    ({"ray": {"accelerator": "rocm"}}, "/ray/accelerator", "cuda"),
    ({"ray": {"version": "2.52.0"}}, "/ray/version", "pattern"),
    ({"ray": {"groups": {"wake": {"gpus": "1"}}}}, "/ray/groups/wake/gpus", "integer"),
    ({"ray": {"groups": {"wake": {"roles": ["dreamer"]}}}}, "/ray/groups/wake/roles/0", "rollout"),
    ({"ray": {"groups": {"wake": {"image": "rocm"}}}}, "/ray/groups/wake/image", "cpu"),
    ({"ray": {"groups": {"wake": {"replica": 2}}}}, "/ray/groups/wake", "replica"),
    ({"ray": {"groups": {"more": {"enabled": True, "roles": ["wake"]}}}}, "/ray/groups/more", "gpus"),
    ({"ray": {"groups": {"Wake_2": {"enabled": False}}}}, "/ray/groups", "Wake_2"),
    ({"ray": {"groups": {"wake": {"sharedMemory": "8 GB"}}}}, "/ray/groups/wake/sharedMemory", "8 GB"),
    ({"controller": {"settings": {"night_second": 1}}}, "/controller/settings", "night_second"),
    ({"controller": {"settings": {"heartbeat_seconds": 60}}}, "/controller/settings/heartbeat_seconds", "15"),
    ({"controller": {"settings": {"api_key": "ck_x"}}}, "/controller/settings", "api_key"),
    ({"controller": {"service": {"type": "LoadBalancer"}}}, "/controller/service/type", "ClusterIP"),
    ({"controller": {"replicas": 0}}, "/controller/replicas", "1"),
    ({"controller": {"extraEnv": [{"name": "RAY_AUTH_MODE", "value": ""}]}}, "/controller/extraEnv/0/name", ""),
    ({"images": {"cuda": {"digest": "latest"}}}, "/images/cuda/digest", "latest"),
    ({"secrets": {"existingSecret": "Not A Name"}}, "/secrets/existingSecret", "Not A Name"),
    ({"database": {"port": "5432"}}, "/database/port", "integer"),
    ({"database": {"url": "mysql://x"}}, "/database/url", "mysql"),
    ({"storage": {"type": "s3"}}, "/storage", "type"),
    ({"storage": {"accessModes": ["ReadOnlyMany"]}}, "/storage/accessModes/0", "ReadWriteMany"),
    ({"networkPolicy": {"internet": {"except": []}}}, "/networkPolicy/internet/except", "contain"),
    ({"monitoring": {"serviceMonitor": {"interval": "often"}}}, "/monitoring/serviceMonitor/interval", "often"),
    ({"ingress": {"port": 8265}}, "/ingress", "port"),
]
"""Values beside the minimal ones, the place that helm 4 names, and a word of the reason."""
ELSEWHERE: list[tuple[Any, str]] = [
    ({"database": {"existingSecret": ""}}, "database.existingSecret is empty"),
    ({"secrets": {"existingSecret": ""}}, "secrets.existingSecret is empty"),
    ({"secrets": {"create": True}}, "secrets.existingSecret and secrets.create are both given"),
    ({"secrets": {"existingSecret": "", "create": True}}, "secrets.inline.keyPepper"),
    ({"secrets": {"inline": {"apiKey": "ck_x"}}}, "secrets.inline is given"),
    ({"database": {"existingSecret": "", "url": "postgresql://a:b@c/d"}}, "database.url is a secret in the values"),
    ({"postgres": {"dev": {"enabled": True, "password": "x"}}}, "postgres.dev.enabled is a database of its own"),
    ({"database": {"existingSecret": ""}, "postgres": {"dev": {"enabled": True}}}, "postgres.dev.password is empty"),
    ({"storage": {"accessModes": ["ReadWriteOnce"]}}, "storage.accessModes must have ReadWriteMany"),
    ({"modelCache": {"accessModes": ["ReadWriteOnce"]}}, "modelCache.accessModes must have ReadWriteMany"),
    ({"secrets": {"existingSecret": RAYS}}, f"secrets.existingSecret is {RAYS}, which KubeRay takes for"),
    ({"database": {"existingSecret": RAYS}}, f"database.existingSecret is {RAYS}, which KubeRay takes for"),
    ({"hub": {"existingSecret": RAYS}}, f"hub.existingSecret is {RAYS}, which KubeRay takes for"),
    ({"global": {"imagePullSecrets": [{"name": RAYS}]}}, f"global.imagePullSecrets[0].name is {RAYS}, which KubeRay takes for"),
    (
        {"ray": {"groups": {"learner": {"envFrom": [{"secretRef": {"name": RAYS}}]}}}},
        f"ray.groups.learner.envFrom[0].secretRef.name is {RAYS}, which KubeRay takes for",
    ),
    ({"ray": {"env": {"RAY_AUTH_MODE": "disabled"}}}, "ray.env.RAY_AUTH_MODE"),
    ({"ray": {"env": {"HF_TOKEN": "hf_x"}}}, "ray.env.HF_TOKEN"),
    ({"ray": {"groups": {"head": {"enabled": False}}}}, "ray.groups.head"),
    ({"ray": {"groups": {"learner": {"enabled": False}}}}, "has the role learner"),
    ({"ray": {"groups": {"wake": {"minReplicas": 5}}}}, "ray.groups.wake.minReplicas 5 is more than maxReplicas 4"),
    ({"ray": {"groups": {"wake": {"replicas": 9}}}}, "ray.groups.wake.replicas 9 is not between"),
    ({"ray": {"accelerator": "cpu"}}, "gpus is 1, but ray.accelerator is cpu"),
    ({"ray": {"gcsFaultTolerance": {"enabled": True}}}, "ray.gcsFaultTolerance.redisAddress is empty"),
    ({"ingress": {"enabled": True}}, "ingress.host is empty"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    ({"controller": {"autoscaling": {"minReplicas": 9}}}, "controller.autoscaling.minReplicas 9 is more than maxReplicas 6"),
    ({"ray": {"labels": {"kueue.x-k8s.io/queue-name": "nights"}}}, "set ray.annotations to kueue.x-k8s.io/elastic-job=true"),
    (
        {"controller": {"serviceAccount": {"create": False}}, "nights": {"ownCluster": {"enabled": True}}},
        "set controller.serviceAccount.create=true, or name another one",
    ),
    ({"networkPolicy": {"apiServer": {"cidrs": []}}}, "networkPolicy.apiServer.cidrs is empty"),
]
"""What the schema cannot say, and the words."""


def refused(values: Any, folder: Path, version: Version = 4) -> str:
    """Why helm does not render these values on top of the minimal ones."""
    file = folder / "broken.yaml"
    file.write_text(yaml.safe_dump(values))
    done = template("--values", values_file("minimal"), "--values", file, version=version)
    assert done.returncode == 1, "it was rendered"
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(("values", "place", "word"), SCHEMA, ids=[f"{place} {word}" for _, place, word in SCHEMA])
def test_the_schema_names_the_field(values: Any, place: str, word: str, tmp_path: Path) -> None:
    told = refused(values, tmp_path)
    assert "don't meet the specifications of the schema" in told
    assert f"at '{place}" in told
    assert word in told


@pytest.mark.parametrize(("values", "words"), ELSEWHERE, ids=[words for _, words in ELSEWHERE])
def test_what_contradicts_itself_is_refused_with_the_remedy(values: Any, words: str, tmp_path: Path) -> None:
    told = refused(values, tmp_path)
    assert words in told
    assert len(told.strip().splitlines()) <= 3 or "level=" in told


def test_a_secret_may_have_the_name_of_the_raycluster_where_rays_own_has_another(tmp_path: Path) -> None:
    file = tmp_path / "named.yaml"
    file.write_text(yaml.safe_dump({"secrets": {"existingSecret": RAYS}, "ray": {"auth": {"existingSecret": "ray-token"}}}))
    assert template("--values", values_file("minimal"), "--values", file).returncode == 0


@pytest.mark.parametrize("account", [{"create": False, "name": "nights"}, {"create": True}])
def test_an_account_of_ones_own_may_make_rayjobs(account: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "account.yaml"
    file.write_text(yaml.safe_dump({"controller": {"serviceAccount": account}, "nights": {"ownCluster": {"enabled": True}}}))
    assert template("--values", values_file("minimal"), "--values", file).returncode == 0


def test_helm_3_refuses_too(tmp_path: Path) -> None:
    assert "controller.settings" in refused({"controller": {"settings": {"night_second": 1}}}, tmp_path, 3)
    assert "database.existingSecret is empty" in refused({"database": {"existingSecret": ""}}, tmp_path, 3)
