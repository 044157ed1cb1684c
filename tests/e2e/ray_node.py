"""One more node of a cluster, on this machine's loopback address: `python ray_node.py PARAMETERS`, a JSON object of RayParams.

`ray start --address` does not do it: where it takes 127.0.0.1 for what it is (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0) it takes no second node.
"""

from __future__ import annotations

import json
import sys
import time

from ray._private.node import Node
from ray._private.parameter import RayParams


def main(parameters: str) -> None:
    """Until it is asked to end, or a process of the node has ended."""
    node = Node(RayParams(**json.loads(parameters)), head=False, shutdown_at_exit=True, spawn_reaper=True)
    while not node.dead_processes():
        time.sleep(1.0)
    raise SystemExit(f"ended by itself: {node.dead_processes()}")


if __name__ == "__main__":
    main(sys.argv[1])
