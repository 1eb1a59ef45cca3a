"""Joins a Ray cluster as a driver, safely: before Ray is imported its settings must stand in the environment.

Knows no training. The cluster is what RAY_ADDRESS names; this machine runs a node of it.
"""

import io
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.ray_cluster import RayCluster

NAMESPACE = "charsmith"
MODE = "RAY_AUTH_MODE"
ANSWER_SECONDS = 10.0


log = logging.getLogger("worker.ray")


class ClusterError(Exception):
    """There is no Ray cluster to work on, or it is not as it must be; the message says what to do."""


def connect(wanted: str, threads: int | None) -> "RayCluster":
    """Join the cluster that RAY_ADDRESS names. `wanted` is CHARSMITH_DEVICE, `threads` CHARSMITH_TORCH_THREADS.

    Raises ClusterError.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or "://" in address:
        raise ClusterError(
            "CHARSMITH_EXECUTOR=ray wants RAY_ADDRESS=HOST:PORT, the address of the cluster's head, on a machine that "
            f"has joined the cluster (`ray start --address=HOST:PORT`); it is {repr(address) if address else 'not set'}"
        )
    require_token()
    require_answer(address)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0"} | os.environ
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes after the end joins nothing anew
    sys.stdout = RayOutput()
    try:
        import ray

        from worker.ray_cluster import RayCluster
        from worker.ray_nodes import Nodes
        from worker.ray_training import FAULTS
    except ImportError:
        raise ClusterError("CHARSMITH_EXECUTOR=ray needs Ray: pip install 'charsmith[ray]'") from None
    try:
        ray.init(
            address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
        )
    except FAULTS as error:
        raise ClusterError(
            f"RAY_ADDRESS={address}: {error}. Is the cluster up, is a node of it running on this machine, and is its "
            "token in RAY_AUTH_TOKEN or in the file RAY_AUTH_TOKEN_PATH?"
        ) from error
    nodes = Nodes(ray.get_runtime_context().get_node_id())
    nodes.look()
    nodes.watch()
    return RayCluster(wanted, threads, nodes)


class RayOutput(io.TextIOBase):
    """Stands for standard output, on which Ray tells a driver of its cluster's troubles, in plain text, whatever it is
    told about logs. Here they become records of the log: the first line, which says it; all of it for who debugs."""

    def write(self, text: str) -> int:
        if said := text.strip():
            log.warning("%s", said.partition("\n")[0][:500])
            log.debug("%s", said)
        return len(text)


def require_answer(address: str) -> None:
    """Raises ClusterError where nobody takes a connection: Ray would try again for ever, and say so to nobody."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"RAY_ADDRESS={address}: it is HOST:PORT, the address of the cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ClusterError(f"RAY_ADDRESS={address}: no head of a Ray cluster answers there ({error})") from error


def require_token() -> None:
    """Token authentication is on, for Ray and what it starts from this process.

    Whoever may talk to a cluster without it may run programs on it. Raises ClusterError where something else is asked
    for: to Ray whatever it does not know means none.
    """
    mode = os.environ.get(MODE) or "token"
    if mode.lower() != "token":
        raise ClusterError(f"{MODE}={mode}: Charsmith works on a cluster with token authentication alone")
    os.environ[MODE] = "token"
