"""The table of docs/service-speed.md."""

from __future__ import annotations

from typing import Any

from benchmarks.page import DOCS

PAGE = DOCS / "service-speed.md"
WINDOWS = ("before", "night", "promotion")


def tables(found: dict[str, Any]) -> str:
    """As it stands in the page."""
    rows = ["| | |", "|---|---|"]
    if "failed_requests" in found:
        rows += [
            f"| requests of a night in unihemispheric placement, with a promotion at dawn, then {found['rollout_ms']['n']} rollbacks and "
            f"promotions by hand | {found['requests']} |",
            f"| **of these failed** | **{found['failed_requests']}** |",
            *(
                f"| p50 / p99, {name} | {found[f'p50_{name}_ms']} / {found[f'p99_{name}_ms']} ms |"
                for name in ("before", "night", "promotion")
            ),
            f"| a rollback or a promotion, until every replica has proved it | {found['rollout_ms']['median']} ms (longest "
            f"{found['rollout_ms']['longest']} ms) |",
        ]
    if "revocation_ms" in found:
        rows += [
            f"| a revocation of the active version, until every replica has proved its parent | {found['revocation_ms']} ms (one) |"
        ]
    if gate := found.get("gateway"):
        rates = gate["requests_per_second"]
        rows += [
            f"| requests a second through the gateway, vLLM's server alone, ratio | {rates['gateway']:g}, {rates['vllm']:g}, "
            f"{gate['ratio']} |"
        ]
    for name, told in found.get("experiences", {}).items():
        rows += [f"| experiences a second, screened and on disk, {name} | {told['per_second']:g} |"]
    if held := found.get("memory"):
        rows += [
            f"| controller with {held['deployments']:,} deployments and {held['experiences']:,} experiences, empty | "
            f"{held['full']['mib']:g} MiB, {held['empty']['mib']:g} MiB |",
            f"| a deployment's status, 100 of its experiences (p50, then) | {held['full']['status_p50_ms']:g} ms, "
            f"{held['full']['list_p50_ms']:g} ms |",
        ]
    return "\n".join(rows)
