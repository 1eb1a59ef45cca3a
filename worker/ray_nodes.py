"""What a dispatcher knows of its cluster's nodes: what they have, as the head last told it, and which are of no use.

Knows no training. A thread of its own asks the head, since nobody else may wait for an answer: while the head is away
there is none, and a stop must be heard all the same. Any thread may ask here.
"""

import logging
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two questions to the head."""
SILENT_SECONDS = 5.0
"""A head that has said nothing for so long is taken to be away."""
REFUSED_SECONDS = 300.0
"""For so long a node is left alone on which no training can begin."""
BUSY_SECONDS = 30.0
"""For so long one that did not have in time what a training needs: others have it, who end at any moment."""
ANSWER_SECONDS = 2.0
"""Which a node has to take a connection."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living node; memory in bytes, that of its machine and not of its GPUs."""

    id: str
    address: str
    port: int
    cpus: int
    gpus: int
    memory_bytes: int


class Nodes:
    """Of the cluster that this process has joined by its own node, `own_node`."""

    def __init__(self, own_node: str) -> None:
        self._own_node = own_node
        self._living: tuple[Node, ...] = ()
        self._has_own = self._is_heard = True
        self._heard_at = time.monotonic()
        self._refused: dict[str, float] = {}
        self._lock = threading.Lock()

    def watch(self) -> None:
        """From now on, as long as this process lives, what is told is a second old at most, if the head answers."""
        threading.Thread(target=self._keep_looking, name="nodes", daemon=True).start()

    def look(self) -> None:
        """Ask the head once. When that fails, all stays as it was."""
        try:
            living = [node for node in _nodes() if node["Alive"]]
            found = tuple(_node(told) for told in living)
        except Exception:
            if self._is_heard:
                log.warning("the cluster does not say which nodes it has", exc_info=True)
            self._is_heard = False
            return
        self._is_heard = True
        self._living = found
        has_own = any(node.id == self._own_node for node in found)
        if self._has_own and not has_own:
            log.error("this machine's node of Ray is gone: without it no training can be reached")
        self._has_own = has_own
        self._heard_at = time.monotonic()

    def has_own(self) -> bool:
        """Whether this machine's node lives, by which everything goes to the others and comes back."""
        return self._has_own

    def head_answers(self) -> bool:
        """Whether it did a moment ago. Without it nothing can begin."""
        return time.monotonic() - self._heard_at < SILENT_SECONDS

    def usable(self) -> list[Node]:
        """All that live and were not refused."""
        with self._lock:
            now = time.monotonic()
            self._refused = {node_id: until for node_id, until in self._refused.items() if until > now}
            return [node for node in self._living if node.id not in self._refused]

    def refuse(self, node: Node, why: str, seconds: float = REFUSED_SECONDS) -> None:
        """Leave it alone for a while."""
        log.warning("node %s (%s) is left alone for %.0f s: %s", node.address, node.id, seconds, why)
        with self._lock:
            self._refused[node.id] = time.monotonic() + seconds

    def suspect(self, node: Node) -> None:
        """A training there was lost. If the node does not answer either, it is left alone: until the head has noticed,
        which takes it 15 s or more, a dead node seems to have room for whatever died with it."""
        if not _answers(node):
            self.refuse(node, "it does not answer")

    def _keep_looking(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if ray.is_initialized():
                self.look()


def _node(told: dict[str, Any]) -> Node:
    resources = told["Resources"]
    cpus, gpus, memory = (int(resources.get(name, 0)) for name in ("CPU", "GPU", "memory"))
    return Node(told["NodeID"], told["NodeManagerAddress"], told["NodeManagerPort"], cpus, gpus, memory)


def _answers(node: Node) -> bool:
    try:
        socket.create_connection((node.address, node.port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _nodes() -> list[dict[str, Any]]:
    return ray.nodes()  # type: ignore[no-any-return, no-untyped-call]
