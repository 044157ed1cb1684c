"""Names, namespace, resources and environment of every actor: the only place where they are spelt."""

from __future__ import annotations

import os

NAMESPACE = "circadian"
ROLES_VARIABLE = "NODES_HAVE_ROLES"
"""Whether the cluster's nodes offer `circadian_<role>`: "1" where groups of nodes are roles (wake, rollout, learner)."""
ROLE = "circadian_"
"""How the resource's name begins."""
ROLE_SHARE = 0.001
"""Of a node's role: it says where something runs, and limits nothing."""


def role(name: str) -> dict[str, float]:
    """Custom resources that put an actor or a task on nodes of this role; none where the cluster's nodes have no roles."""
    return {f"{ROLE}{name}": ROLE_SHARE} if os.environ.get(ROLES_VARIABLE) == "1" else {}


WAKE_REPLICA = "replica"
"""Ray Serve's deployment within the application of each of ours."""


def wake_application(deployment: str) -> str:
    """The Ray Serve application whose replicas answer clients."""
    return f"wake-{deployment}"


def wake_actors(deployment: str) -> str:
    """How the names begin that Ray Serve gives to the actors of these replicas."""
    return f"SERVE_REPLICA::{wake_application(deployment)}#{WAKE_REPLICA}#"


def fast_learner(deployment: str) -> str:
    """The learner of the fast level of a deployment that learns online."""
    return f"fast/{deployment}"


def rollout_worker(sleep: str, attempt: int, index: int) -> str:
    """The worker that samples for one attempt at a night."""
    return f"rollout/{sleep}-a{attempt}/{index}"


def learner_run(sleep: str, stage: str) -> str:
    """The Ray Train run of a stage: the same in every attempt, so that the next one continues from the last one's checkpoints."""
    return f"{sleep}-{stage}"


WHOSE = ("CIRCADIAN_NIGHT_TENANT", "CIRCADIAN_NIGHT_DEPLOYMENT")
"""Variables in which a night's processes find the tenant and the name of their deployment, which is what their metrics are told under."""


def night_job(sleep: str, attempt: int) -> str:
    """The Ray job's submission id: the fence against running one attempt twice."""
    return f"{sleep}-a{attempt}"


def vllm_environment() -> dict[str, str]:
    """Environment of a process that holds a vLLM engine. One OpenMP thread: without it a first batch can take 20 s on a CPU."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # holds for vllm.LLM only: an AsyncLLM always has a process of its own for its engine
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "TORCH_COMPILE_DISABLE": "1",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
    }


def learner_environment() -> dict[str, str]:
    """Environment of a learner process."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "DS_ACCELERATOR": os.environ.get("DS_ACCELERATOR", "cpu")}
