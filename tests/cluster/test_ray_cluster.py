"""What a dispatcher takes its cluster for, by the nodes that it is told of: they join late, and go."""

import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'charsmith[ray]'")

from ray.exceptions import ObjectStoreFullError

from worker import ray_cluster, ray_nodes, ray_texts
from worker.executor import NoPlace
from worker.launch import TrainingTask
from worker.ray_cluster import PROCESS_BYTES, RayCluster
from worker.ray_nodes import Node, Nodes
from worker.ray_training import Seat

OWN = "f" * 56
"""The dispatcher's node, which has no cores."""
MORE = 2**31
BASE = MORE - PROCESS_BYTES
"""Of memory, for several trainings of a few bytes each."""
SMALL, LARGE = {"CPU": 2.0, "memory": MORE + 3.0}, {"CPU": 4.0, "memory": MORE + 7.0}
EIGHT = {"CPU": 8.0, "memory": 4.0 * MORE}
WITH_GPU = {"CPU": 8.0, "memory": 1.0, "GPU": 1.0}


class Told:
    """What the head says, and a dispatcher that has heard it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard = Nodes(OWN)
        self.nodes: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.away = False
        self.ended = 0
        monkeypatch.setattr(ray_nodes, "_nodes", lambda: self.nodes)
        monkeypatch.setattr(ray_cluster, "order_end", self._end)

    def has(self, *resources: dict[str, float], own: bool = True) -> None:
        self.nodes = [node(OWN, {"memory": 2**40}, alive=own)]
        self.nodes += [node(id_of(number), each) for number, each in enumerate(resources)]
        self.heard.look()

    def cluster(self, wanted: str = "cpu", threads: int | None = None) -> RayCluster:
        """Whose actors are not begun, only asked for."""
        made = RayCluster(wanted, threads, self.heard)
        made._actor_class = self
        return made

    def options(self, **wanted: Any) -> "Told":
        self.asked.append(wanted)
        return self

    def remote(self) -> None:
        if self.away:
            raise ConnectionError("the head is away")

    def _end(self, _: Any) -> None:
        self.ended += 1

    def node(self, number: int) -> Node:
        """As it is known."""
        (found,) = (node for node in self.heard._living if node.id == id_of(number))
        return found


def id_of(number: int) -> str:
    """Of a node that trains, as Ray has ids."""
    return f"{number + 1:056x}"


def node(name: str, resources: dict[str, float], *, alive: bool = True) -> dict[str, Any]:
    at = {"NodeManagerAddress": f"at {name}", "NodeManagerPort": 1}
    return {"NodeID": name, "Alive": alive, "Resources": resources, **at}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def test_without_a_node_that_trains_there_is_no_place_and_no_figure(told: Told) -> None:
    told.has()
    cluster = told.cluster("auto")
    assert (cluster.device, cluster.places(), cluster.memory_bytes) == ("cpu", 0, None)


def test_memory_is_that_of_the_largest_node_ever_seen_since_jobs_can_wait_for_it(told: Told) -> None:
    told.has(SMALL)
    cluster = told.cluster()
    assert (cluster.places(), cluster.threads, cluster.memory_bytes) == (1, 2, BASE + 3)
    told.has(SMALL, LARGE)
    assert (cluster.places(), cluster.threads, cluster.memory_bytes) == (3, 2, BASE + 7)
    told.has(SMALL)
    assert (cluster.places(), cluster.memory_bytes) == (1, BASE + 7)
    told.has()
    assert (cluster.places(), cluster.memory_bytes) == (0, BASE + 7)


def test_a_gpu_that_joins_later_is_taken_and_waited_for_when_it_is_away(told: Told) -> None:
    told.has(EIGHT)
    cluster = told.cluster("auto", 2)
    assert (cluster.device, cluster.places()) == ("cpu", 4)
    told.has(EIGHT, WITH_GPU)
    assert (cluster.device, cluster.places()) == ("cuda", 1)
    told.has(EIGHT)
    assert (cluster.device, cluster.places()) == ("cuda", 0)


def test_of_a_gpu_s_memory_nothing_is_told_and_its_node_alone_counts(told: Told) -> None:
    told.has({"CPU": 2.0, "memory": 99.0}, WITH_GPU)
    cluster = told.cluster("cuda")
    assert (cluster.memory_bytes, cluster.threads, cluster.places()) == (None, 8, 1)


@pytest.mark.parametrize(("wanted", "device"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:3", "cuda")])
def test_a_device_that_is_named_is_taken_at_its_word(told: Told, wanted: str, device: str) -> None:
    told.has()
    assert told.cluster(wanted).device == device


@pytest.mark.parametrize("listed", [True, False], ids=["dead", "of another cluster"])
def test_without_its_own_node_it_is_lost_and_has_no_places_although_others_live(told: Told, listed: bool) -> None:
    told.has(EIGHT)
    cluster = told.cluster("cpu", 2)
    assert (cluster.is_lost(), cluster.works(), cluster.places()) == (False, True, 4)
    told.has(EIGHT, own=False)
    if not listed:
        del told.nodes[0]
        told.heard.look()
    assert (cluster.is_lost(), cluster.works(), cluster.places()) == (True, False, 0)


def test_a_node_of_no_use_is_left_alone_for_a_while(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(ray_nodes.time, "monotonic", lambda: now)
    told.has(SMALL, LARGE)
    cluster = told.cluster("cpu", 2)
    told.heard.refuse(told.node(1), "a test")
    assert cluster.places() == 1
    told.heard.refuse(told.node(0), "a test")
    assert cluster.places() == 0
    now = ray_nodes.REFUSED_SECONDS + 1
    told.heard.look()
    assert cluster.places() == 3


def test_for_what_jobs_wait_is_told_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    told.has(SMALL, LARGE)
    caplog.set_level("INFO")
    cluster = told.cluster("cpu", 5)
    assert [cluster.places(), cluster.places()] == [0, 0]
    told.has(EIGHT)
    assert [cluster.places(), cluster.places()] == [1, 1]
    told.has()
    assert [cluster.places(), cluster.places()] == [0, 0]
    assert [record.message for record in caplog.records] == [
        "jobs wait: CHARSMITH_TORCH_THREADS asks for 5 cores, and no node has more than 4",
        "there is room for 1 trainings",
        "jobs wait: no node is there on which a training can begin",
    ]


@pytest.mark.parametrize(
    ("error", "silent"), [(ConnectionError(), True), (OSError(), True), (KeyError(), True), (None, False)]
)
def test_nothing_begins_while_the_head_is_silent(
    told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception | None, silent: bool
) -> None:
    now = 0.0
    monkeypatch.setattr(ray_nodes.time, "monotonic", lambda: now)
    told.has(SMALL)
    cluster = told.cluster()

    def asked() -> list[dict[str, Any]]:
        if error is not None:
            raise error
        return told.nodes

    monkeypatch.setattr(ray_nodes, "_nodes", asked)
    now = ray_nodes.SILENT_SECONDS + 1
    told.heard.look()
    assert (cluster.is_lost(), cluster.places()) == (False, 0 if silent else 1)
    if silent:
        with pytest.raises(NoPlace, match="head"):
            cluster.start(task_of(tmp_path, b"a"))


class Begun(list[tuple[Any, Seat, Callable[[bool], None]]]):
    """Of each training that would be begun: its text, its seat, and what is told when it is over."""

    def end(self, number: int, *, is_ready: bool = False) -> None:
        self[number][2](is_ready)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    made = Begun()
    monkeypatch.setattr(ray_texts.ray, "put", lambda piece: piece)
    monkeypatch.setattr(ray_cluster, "RayTraining", lambda _, text, seat, let_go: made.append((text, seat, let_go)))
    return made


def test_trainings_take_their_cores_and_memory_of_one_node_each(told: Told, begun: Begun, tmp_path: Path) -> None:
    told.has(SMALL, LARGE)
    cluster = told.cluster()
    for number, threads in enumerate((2, 64, 1)):  # two of them began where there were more or fewer cores
        cluster.start(replace(task_of(tmp_path, str(number).encode()), threads=threads, memory_bytes=5))
    assert [(asked["num_cpus"], asked["memory"] - PROCESS_BYTES, asked["num_gpus"]) for asked in told.asked] == [
        (2, 5, 0),
        (2, 5, 0),
        (1, 5, 0),
    ]
    chosen = [seat.place.node.id for _, seat, _ in begun]
    assert chosen == [id_of(1), id_of(0), id_of(1)], "the one with the most cores left, the memory suffices for two"
    assert [asked["scheduling_strategy"].node_id for asked in told.asked] == chosen
    assert not any(asked["scheduling_strategy"].soft for asked in told.asked)
    assert cluster.places() == 3, "one core is left, and others want two"
    begun.end(0)
    assert cluster.places() == 3
    assert list(tmp_path.iterdir()) == [], "the texts lie in the object store"


def test_places_are_what_is_left_beside_the_trainings_that_run(told: Told, begun: Begun, tmp_path: Path) -> None:
    told.has(EIGHT)
    cluster = told.cluster()
    assert (cluster.threads, cluster.places()) == (8, 1)
    cluster.start(replace(task_of(tmp_path, b"a"), threads=8))
    assert cluster.places() == 1
    told.has(EIGHT, SMALL)
    assert (cluster.threads, cluster.places()) == (2, 2), "the large node is full"
    begun.end(0)
    assert cluster.places() == 5


@pytest.mark.usefixtures("begun")
def test_what_nodes_have_no_room_for_waits_without_taking_a_place(told: Told, tmp_path: Path) -> None:
    told.has(SMALL, LARGE)
    cluster = told.cluster()
    with pytest.raises(NoPlace, match="no node is there now with 1 cores"):
        cluster.start(replace(task_of(tmp_path, b"a"), memory_bytes=2**50))
    cluster.start(replace(task_of(tmp_path, b"b"), memory_bytes=BASE + 7))
    with pytest.raises(NoPlace, match=r"no node has 1 cores and .* left"):
        cluster.start(replace(task_of(tmp_path, b"c"), memory_bytes=BASE + 7))
    assert (len(told.asked), cluster.places()) == (1, 2)


def test_a_seat_is_used_again_by_whom_it_fits_and_goes_for_others(told: Told, begun: Begun, tmp_path: Path) -> None:
    told.has(LARGE)
    cluster = told.cluster("cpu", 2)
    cluster.start(replace(task_of(tmp_path, b"a"), threads=2, memory_bytes=5))
    begun.end(0, is_ready=True)
    assert cluster.places() == 2
    cluster.start(replace(task_of(tmp_path, b"b"), threads=2, memory_bytes=4))
    begun.end(1, is_ready=True)
    assert ([seat.is_new for _, seat, _ in begun], told.ended) == ([True, False], 0)
    cluster.start(replace(task_of(tmp_path, b"c"), threads=2, memory_bytes=BASE + 7))  # all that there is
    assert ([seat.is_new for _, seat, _ in begun], told.ended) == ([True, False, True], 1)
    begun.end(2)
    assert (told.ended, cluster.places()) == (2, 2)


def test_seats_go_only_where_that_makes_room(told: Told, begun: Begun, tmp_path: Path) -> None:
    """And where several wait, the one that waits longest is left to end."""
    told.has(LARGE, SMALL)
    cluster = told.cluster("cpu", 2)
    for number in range(3):
        cluster.start(task_of(tmp_path, str(number).encode()))
    for number in range(3):
        begun.end(number, is_ready=True)
    with pytest.raises(NoPlace):
        cluster.start(replace(task_of(tmp_path, b"too large"), memory_bytes=2**50))
    assert told.ended == 0
    cluster.start(task_of(tmp_path, b"small"))
    assert begun[3][1].place is begun[2][1].place
    begun.end(3, is_ready=True)
    cluster.start(replace(task_of(tmp_path, b"large"), memory_bytes=BASE + 7))  # the large node's two go
    assert told.ended == len([seat for _, seat, _ in begun[:3] if seat.place.node.id == id_of(0)])


@pytest.mark.parametrize("error", [OSError("no more files"), MemoryError()])
def test_whatever_goes_wrong_leaves_no_place_taken(
    told: Told, begun: Begun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    told.has(EIGHT)
    cluster = told.cluster("cpu", 2)

    def fails(*_: Any) -> Any:
        raise error

    for where, name in ((ray_texts, "_put"), (told, "remote")):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, fails)
            with pytest.raises(type(error)):
                cluster.start(task_of(tmp_path, b"a"))
    assert (cluster._places.taken(), cluster.places()) == (0, 4)
    cluster.start(task_of(tmp_path, b"a"))
    assert len(begun) == 1


@pytest.mark.parametrize("why", ["it waited for long", "its node is of no use"])
def test_a_seat_that_nobody_wants_any_more_goes(
    told: Told, begun: Begun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str
) -> None:
    told.has(LARGE)
    cluster = told.cluster("cpu", 2)
    cluster.start(task_of(tmp_path, b"a"))
    begun.end(0, is_ready=True)
    assert (cluster.places(), told.ended) == (2, 0)
    if why == "it waited for long":
        monkeypatch.setattr(ray_cluster, "IDLE_SECONDS", -1.0)
    else:
        told.heard.refuse(told.node(0), "a test")
    assert (cluster.places(), told.ended) == (2 if why == "it waited for long" else 0, 1)


def test_seats_that_wait_are_no_places_while_the_head_is_silent(
    told: Told, begun: Begun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told.has(LARGE)
    cluster = told.cluster("cpu", 2)
    cluster.start(task_of(tmp_path, b"a"))
    cluster.start(task_of(tmp_path, b"b"))
    begun.end(0, is_ready=True)
    monkeypatch.setattr(told.heard, "head_answers", lambda: False)
    assert cluster.places() == 1


def test_memory_counts_only_where_there_are_cores_enough(told: Told) -> None:
    told.has({"CPU": 8.0, "memory": MORE + 2.0}, {"CPU": 4.0, "memory": MORE + 16.0})
    assert told.cluster("cpu", 8).memory_bytes == BASE + 2
    assert told.cluster("cpu", 4).memory_bytes == BASE + 16


def test_one_dispatcher_has_a_bound(told: Told) -> None:
    told.has(*({"CPU": 64.0, "memory": 2.0**50} for _ in range(10)))
    assert told.cluster("cpu", 1).places() == ray_cluster.MOST_PLACES


class Put:
    """Ray's object store: takes so many pieces, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.taken: list[bytes] = []
        self.room = room
        monkeypatch.setattr(ray_texts.ray, "put", self._put)
        monkeypatch.setattr(ray_texts, "PIECE_BYTES", 4)

    def _put(self, piece: bytes) -> int:
        if len(self.taken) == self.room:
            raise ObjectStoreFullError
        self.taken.append(piece)
        return len(self.taken)


def task_of(folder: Path, text: bytes) -> TrainingTask:
    path = folder / text.decode()
    path.write_bytes(text)
    return TrainingTask({}, {}, str(path), str(folder), str(folder), text.decode(), "cpu", 1, None)


def test_a_text_that_the_cluster_does_not_take_is_no_fault_of_the_job(
    told: Told, begun: Begun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And is put there anew by the next that reads it."""
    told.has(EIGHT)
    put, cluster = Put(monkeypatch, 1), told.cluster("cpu", 2)
    with pytest.raises(NoPlace, match="took no text"):
        cluster.start(task_of(tmp_path, b"abcdefgh"))
    assert (told.ended, cluster.places()) == (1, 4)
    put.room = 99
    cluster.start(task_of(tmp_path, b"abcdefgh"))
    assert put.taken[1:] == [b"abcd", b"efgh"]
    assert len(begun) == 1


def test_an_actor_that_the_cluster_does_not_take_is_no_fault_of_the_job(told: Told, tmp_path: Path) -> None:
    told.has(EIGHT)
    cluster = told.cluster("cpu", 2)
    told.away = True
    with pytest.raises(NoPlace, match="took no training"):
        cluster.start(task_of(tmp_path, b"abcdefgh"))
    assert cluster.places() == 4


def test_a_text_is_put_once_for_all_that_read_it_meanwhile(
    told: Told, begun: Begun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told.has(EIGHT)
    put, cluster = Put(monkeypatch, 99), told.cluster("cpu", 2)
    one, two = b"abcdefgh", b"another text"
    for each in (one, one, two, one):
        cluster.start(task_of(tmp_path, each))
    assert len(put.taken) == 5
    assert begun[0][0] is begun[1][0] is begun[3][0]
    for number in range(4):
        begun.end(number)
    cluster.start(task_of(tmp_path, one))  # the last one that was used is still there
    assert len(put.taken) == 5
    cluster.start(task_of(tmp_path, two))
    assert len(put.taken) == 8


def test_a_node_that_lost_a_training_is_left_alone_if_it_does_not_answer(told: Told) -> None:
    """Until the head has noticed, a dead node seems to have room."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        told.has(SMALL)
        address, port = server.getsockname()
        told.nodes[1] |= {"NodeManagerAddress": address, "NodeManagerPort": port}
        told.heard.look()
        cluster = told.cluster()
        told.heard.suspect(told.node(0))
        assert cluster.places() == 1
    told.heard.suspect(told.node(0))
    assert cluster.places() == 0
