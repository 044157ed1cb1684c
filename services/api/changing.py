"""What may be changed of a deployment, and how a merge patch (RFC 7396) changes it. Its name, base model and memory are for good: its
versions are made of them."""

from __future__ import annotations

from typing import Any

from circadian.specs import PromotionSpec, Recipe
from circadian.specs.screening import ScreeningSpec
from services.api.schemas import Body
from services.fleet import ServingSpec
from services.metadata import Metadata
from services.retention import RetentionSpec

Patch = dict[str, Any] | None
MERGE_PATCH_TYPE = "application/merge-patch+json"
COLUMNS = {"metadata": "meta"}
"""Of the fields whose column has another name."""


class DeploymentPatch(Body):
    serving: Patch = None
    """Parts of it, for example `{"replicas": 2}`."""
    recipe: Patch = None
    """Parts of how it sleeps unless a sleep says otherwise, and of how it learns online."""
    promotion: Patch = None
    """Parts of what becomes of versions that its nights make."""
    screening: Patch = None
    """Parts of what is done with what comes in before it is stored."""
    retention: Patch = None
    """Parts of how long what comes in is kept: of what is there already, too."""
    metadata: Patch = None
    """Pairs to add or to change; one that is null goes."""


class Changed(Body):
    """What a deployment is after the patch."""

    serving: ServingSpec = ServingSpec()
    recipe: Recipe = Recipe()
    promotion: PromotionSpec = PromotionSpec()
    screening: ScreeningSpec = ScreeningSpec()
    retention: RetentionSpec = RetentionSpec()
    metadata: Metadata = {}


MERGE_PATCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/DeploymentPatch"}} for kind in (MERGE_PATCH_TYPE, "application/json")
        },
    }
}
"""For the OpenAPI file: both media types are read alike."""


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null takes away, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
