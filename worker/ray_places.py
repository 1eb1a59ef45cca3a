"""What a dispatcher's trainings have taken of which node. Knows no training and no Ray.

The dispatcher chooses the node of each, and not Ray: so whatever goes wrong there has a name, and nobody waits for room
that is not there. What others have running on the cluster is not known here; Ray makes a training wait for it.
"""

import threading
from dataclasses import dataclass

from models.memory_estimate import readable
from worker.executor import NoPlace
from worker.ray_nodes import BUSY_SECONDS, Node, Nodes


@dataclass(frozen=True, slots=True)
class Needs:
    """Of a training."""

    cpus: int
    gpus: int
    memory_bytes: int


class Place:
    """On a node, for one training. `is_idle` says that none is there now."""

    def __init__(self, node: Node, needs: Needs, places: "Places", nodes: Nodes) -> None:
        self.node = node
        self.needs = needs
        self.is_idle = False
        self._places = places
        self._nodes = nodes

    def refuse(self, why: str) -> None:
        """No training can begin on this node: it is left alone for a while, else it would always have room."""
        self._nodes.refuse(self.node, why)

    def wait_for_others(self, why: str) -> None:
        """What was taken here is not to be had yet: the node is left alone for a moment."""
        self._nodes.refuse(self.node, why, BUSY_SECONDS)

    def suspect(self) -> None:
        """The training here was lost: the node is left alone if it does not answer."""
        self._nodes.suspect(self.node)

    def is_shared(self) -> bool:
        """Whether another training of this dispatcher runs on the node."""
        return self._places.taken_on(self.node) > 1

    def leave(self) -> None:
        """The training here is over."""
        self._places.leave(self)


class Places:
    """Of all trainings of this dispatcher. Any thread may call."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._lock = threading.Lock()
        self._taken: list[Place] = []

    def taken(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._taken)

    def free(self, needs: Needs) -> int:
        """How many more could be taken with such needs."""
        with self._lock:
            return sum(_times(needs, self._left(node)) for node in self._nodes.usable())

    def take(self, needs: Needs) -> tuple[Place, list[Place]]:
        """On the node with the most cores left, and the idle places that must go for it. Raises NoPlace."""
        with self._lock:
            usable = self._nodes.usable()
            able = [node for node in usable if _times(needs, self._left(node))]
            in_the_way: list[Place] = []
            if not able:  # all idle ones of a node: with them goes what others would have to wait for
                able = [node for node in usable if _times(needs, self._left(node, beside_idle=True))]
                in_the_way = [place for place in self._taken if place.is_idle]
            if not able:
                words = f"{needs.cpus} cores and {readable(needs.memory_bytes)} of memory"
                exists = any(_times(needs, _all_of(node)) for node in usable)
                raise NoPlace(f"no node {'has' if exists else 'is there now with'} {words}{' left' if exists else ''}")
            node = max(able, key=lambda node: self._left(node, beside_idle=bool(in_the_way)).cpus)
            place = Place(node, needs, self, self._nodes)
            self._taken.append(place)
            return place, [each for each in in_the_way if each.node.id == node.id]

    def leave(self, place: Place) -> None:
        """The training there is over."""
        with self._lock:
            self._taken.remove(place)

    def taken_on(self, node: Node) -> int:
        """How many there are now on one node, without the idle ones."""
        with self._lock:
            return sum(place.node.id == node.id and not place.is_idle for place in self._taken)

    def _left(self, node: Node, *, beside_idle: bool = False) -> Needs:
        left = _all_of(node)
        for place in self._taken:
            if place.node.id == node.id and not (beside_idle and place.is_idle):
                has = place.needs
                left = Needs(left.cpus - has.cpus, left.gpus - has.gpus, left.memory_bytes - has.memory_bytes)
        return left


def _all_of(node: Node) -> Needs:
    return Needs(node.cpus, node.gpus, node.memory_bytes)


def _times(needs: Needs, left: Needs) -> int:
    """How often they fit in; every training takes a core at least."""
    pairs = [(needs.cpus, left.cpus), (needs.gpus, left.gpus), (needs.memory_bytes, left.memory_bytes)]
    return max(0, min(there // wanted for wanted, there in pairs if wanted))
