"""Trains on the nodes of a Ray cluster: a dispatcher's executor (CHARSMITH_EXECUTOR=ray).

Knows no database and imports no torch; `worker.ray_driver` has joined the cluster. An actor holds each place, for one
training after the other, whose events come back as a streaming generator. Invariant: an actor ends with its dispatcher
(Ray ends what a dead driver owned), and nothing but the dispatcher records what it said.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from worker.executor import NoPlace
from worker.launch import TrainingTask
from worker.ray_actor import TrainingActor
from worker.ray_nodes import Node, Nodes
from worker.ray_places import Needs, Place, Places
from worker.ray_texts import Texts
from worker.ray_training import FAULTS, RayTraining, Seat, order_end

log = logging.getLogger(__name__)

PROCESS_BYTES = 600 * 2**20
"""What an actor takes beside its training: its own process, one that has loaded PyTorch, and one forked from that."""
IDLE_SECONDS = 60.0
"""So long without a training, and an actor ends: its place is others' then."""
MOST_PLACES = 200
"""Trainings at once of one dispatcher: each writes to the database some three times a second, which a file of SQLite
takes from 197 on a busy machine (docs/scaling.md), and has two threads here."""


class RayCluster:
    """Executor: as many trainings at once as the nodes have cores (or GPUs) for."""

    def __init__(self, wanted: str, threads: int | None, nodes: Nodes) -> None:
        """`wanted` is CHARSMITH_DEVICE, `threads` CHARSMITH_TORCH_THREADS."""
        self._nodes = nodes
        self._places = Places(nodes)
        self._wanted_device = wanted
        self._wanted_threads = threads
        self._texts = Texts()
        # Once: Ray keeps each class that it is given, here and at the head.
        self._actor_class: Any = ray.remote(TrainingActor)
        self._lock = threading.Lock()
        self._idle: list[tuple[Seat, float]] = []  # since when, the oldest first
        self._has_seen_gpu = False
        self._most_memory = 0
        self._is_without_room = False

    @property
    def device(self) -> str:
        """`auto` is cuda from when a node with a GPU was seen: nodes may join after the dispatcher, and be away."""
        if self._wanted_device != "auto":
            return self._wanted_device.partition(":")[0]  # which of a node's, Ray decides
        self._has_seen_gpu = self._has_seen_gpu or any(node.gpus for node in self._nodes.usable())
        return "cuda" if self._has_seen_gpu else "cpu"

    @property
    def memory_bytes(self) -> int | None:
        """Of the largest node that was ever seen to have enough cores: jobs can wait for it to come back. None where
        nobody knows: before the first node, and of GPUs, of whose memory Ray does not tell."""
        if self.device == "cuda":
            return None
        able = [node.memory_bytes - PROCESS_BYTES for node in self._trainers() if node.cpus >= self.threads]
        self._most_memory = max([self._most_memory, *able])
        return self._most_memory or None

    @property
    def threads(self) -> int:
        """As told, or the cores of the smallest node that trains."""
        return self._wanted_threads or min((node.cpus for node in self._trainers()), default=1)

    def places(self) -> int:
        with self._lock:
            self._end_idle()
            idle = len(self._idle)
        taken = self._places.taken()
        if self.is_lost() or not self._nodes.head_answers():
            return taken - idle  # nothing can begin
        free = self._places.free(self._needs(self.threads, 0))
        self._tell_of_room(taken + free)
        return min(taken + free, MOST_PLACES)

    def start(self, task: TrainingTask) -> RayTraining:
        """Raises NoPlace when the cluster takes nothing."""
        if not self._nodes.head_answers():
            raise NoPlace("the head of the cluster does not answer")
        # A resumed training keeps its threads, but takes no more cores than any other: were it to wait for as many as
        # it once had, others that need fewer would take each that is freed.
        seat = self._seat(self._needs(min(task.threads, self.threads), task.memory_bytes))
        sha256 = task.corpus_sha256
        try:
            text = self._texts.hold(sha256, Path(task.text_path))
        except BaseException as error:
            self._leave(seat, is_ready=False)
            if isinstance(error, FAULTS):
                raise NoPlace(f"the cluster took no text: {error}") from error
            raise

        def let_go(is_ready: bool) -> None:
            try:
                self._texts.let_go(sha256)
            finally:
                self._leave(seat, is_ready=is_ready)

        with suppress(OSError):  # the nodes have it from the object store; the folder goes in the end
            Path(task.text_path).unlink()
        return RayTraining(task, text, seat, let_go)

    def works(self) -> bool:
        return not self.is_lost()  # whether the others do is Ray's to find out

    def is_lost(self) -> bool:
        return not self._nodes.has_own()

    def rest(self) -> None:
        return

    def close(self) -> None:
        ray.shutdown()

    def _seat(self, needs: Needs) -> Seat:
        """One that waits, or a new one, for which others that wait may have to go. Raises NoPlace."""
        with self._lock:
            self._end_idle()
            for waiting in reversed(self._idle):  # those that wait longest end
                seat, has = waiting[0], waiting[0].place.needs
                if (has.cpus, has.gpus) == (needs.cpus, needs.gpus) and has.memory_bytes >= needs.memory_bytes:
                    self._idle.remove(waiting)
                    seat.place.is_idle = False
                    return replace(seat, is_new=False)
            place, in_the_way = self._places.take(needs)
            for waiting in [each for each in self._idle if each[0].place in in_the_way]:
                self._idle.remove(waiting)
                self._end(waiting[0])
        try:
            return Seat(self._actor(place), place, is_new=True)
        except BaseException as error:
            place.leave()
            if isinstance(error, FAULTS):
                raise NoPlace(f"the cluster took no training: {error}") from error
            raise

    def _leave(self, seat: Seat, *, is_ready: bool) -> None:
        """What trained there is over; the seat waits for another one, if it is as good as before."""
        with self._lock:
            if is_ready:
                seat.place.is_idle = True
                self._idle.append((seat, time.monotonic()))
            else:
                self._end(seat)

    def _end_idle(self) -> None:
        """Seats that have waited for long, or whose node is gone or of no use. The lock is held."""
        usable, now = {node.id for node in self._nodes.usable()}, time.monotonic()
        for waiting in [*self._idle]:
            seat, since = waiting
            if now - since > IDLE_SECONDS or seat.place.node.id not in usable:
                self._idle.remove(waiting)
                self._end(seat)

    def _end(self, seat: Seat) -> None:
        order_end(seat.actor)
        seat.place.leave()

    def _tell_of_room(self, places: int) -> None:
        """Once, when jobs begin to wait for nodes, and when they have waited."""
        if (without_room := not places) == self._is_without_room:
            return
        self._is_without_room = without_room
        if not without_room:
            log.info("there is room for %d trainings", places)
        elif 0 < (most := max((node.cpus for node in self._trainers()), default=0)) < self.threads:
            told = f"CHARSMITH_TORCH_THREADS asks for {self.threads} cores, and no node has more than {most}"
            log.warning("jobs wait: %s", told)
        elif self.device == "cuda" and not any(node.gpus for node in self._nodes.usable()):
            log.warning("jobs wait: their trainings want a GPU, and no node has one")
        else:
            log.warning("jobs wait: no node is there on which a training can begin")

    def _trainers(self) -> list[Node]:
        needs_gpu = self.device == "cuda"
        return [node for node in self._nodes.usable() if node.cpus and (node.gpus or not needs_gpu)]

    def _needs(self, cpus: int, memory_bytes: int) -> Needs:
        """Of a training of this device. A GPU's memory is not the machine's, and Ray does not count it."""
        if self.device == "cuda":
            return Needs(cpus, 1, 0)
        return Needs(cpus, 0, memory_bytes + PROCESS_BYTES)

    def _actor(self, place: Place) -> Any:
        """A new one there, whose process begins when Ray has what it needs."""
        needs = place.needs
        return self._actor_class.options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=needs.memory_bytes,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node.id, soft=False),
            max_concurrency=2,  # one thread for the events, one to be asked to pause
            max_restarts=0,
            max_task_retries=0,
        ).remote()
