"""What the queue costs beside the training: short jobs by one, two and four workers, on SQLite and on PostgreSQL.

PostgreSQL is measured where `CHARSMITH_TEST_POSTGRES` names a server, as in the tests.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.store.opening import open_database
from benchmarks.figures import Report, at_most, nearest_rank
from benchmarks.options import Extent, Options
from benchmarks.short_jobs import Attempt, Run, attempts_in, enqueue, start_worker, train_all
from benchmarks.timed_worker import DONE
from tests.databases import SERVER, empty_database, remove_database
from tests.faults.claiming import claim_all
from tests.faults.mortal import barrier, queue, start_mortal

JOBS: dict[Extent, int] = {"full": 200, "short": 24, "tiny": 3}
CLAIMS: dict[Extent, int] = {"full": 500, "short": 200, "tiny": 20}
WORKERS: dict[Extent, tuple[int, ...]] = {"full": (1, 2, 4), "short": (2,), "tiny": (1,)}
KILL_EVERY_SECONDS: dict[Extent, float] = {"full": 10.0, "short": 3.0, "tiny": 3.0}
BAR_SECONDS = 0.050


@dataclass(frozen=True, slots=True)
class Store:
    """A kind of database, and how to get an empty one."""

    name: str
    url: str


def measure_queueing(folder: Path, options: Options) -> list[Report]:
    extent, count = options.extent, JOBS[options.extent]
    alone, whole = [], []
    for kind in ("SQLite", "PostgreSQL") if SERVER else ("SQLite",):
        for workers in WORKERS[extent]:
            with _store(kind) as store:
                alone.append((store.name, str(workers), *_queue_alone(store, workers, CLAIMS[extent])))
            with _store(kind) as store:
                whole.append(_row(store, workers, _trained(folder, store, workers, count), count))
        with _store(kind) as store:
            every = KILL_EVERY_SECONDS[extent]
            killed = _trained(folder, store, 2, count, every)
            remark = f"one killed every {every:.0f} s, {killed.deaths} times: 0 lost, 0 twice"
            whole.append(_row(store, 2, killed, count, remark))
    return [
        Report(
            "The queue alone",
            ("database", "workers", "claims per second", "ms to queue a job", "ms to claim, renew and end one, each"),
            tuple(alone),
            ("Processes that claim, show life once and end each job at once; nothing is trained.",),
        ),
        Report(
            f"{count} short jobs, trained by real workers",
            (
                *("database", "workers", "jobs per minute", "queue, ms per job", "95 %", "bar"),
                *("claim, tell, end", "process, ms", "loading, ms", "training, ms", ""),
            ),
            tuple(whole),
            (
                "GRU 1x16, 6 steps, one evaluation. Jobs per minute: from the first claim to the last end, all that "
                "workers load at their first job included. Other columns are medians, but queue, a mean, and the "
                "95th percentile beside it.",
                "queue: from the end of a job to the same worker's next claim, from there until a training process is "
                "told what to do, and from training's last word until the end is recorded; the three by themselves "
                "under `claim, tell, end`. process: until the forked process says its first word. loading: text, "
                "network, compiled code. training: steps, evaluations, checkpoints, and what of it is recorded. "
                "Each training has one thread; with more workers than cores they wait for cores.",
                "Lost: a job that did not succeed. Twice: a history that is not one attempt after the other "
                "(tests/faults/evidence.py), looked for in every run.",
            ),
        ),
    ]


@contextmanager
def _store(kind: str) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as made:
        if kind == "PostgreSQL":
            url = empty_database(Path(made))
            yield Store(kind, url)
            remove_database(url)
        else:
            yield Store(kind, f"sqlite:///{made}/charsmith.db")


def _queue_alone(store: Store, workers: int, count: int) -> tuple[str, str, str]:
    with closing(open_database(store.url)) as database:
        began = time.perf_counter()
        enqueue(database, count)
        queued = time.perf_counter() - began
        start, results = barrier(workers + 1), queue()
        processes = [
            start_mortal(claim_all, store.url, f"worker-{number}", start, results) for number in range(workers)
        ]
        start.wait(60)
        began = time.perf_counter()
        claimed = sum(len(results.get(timeout=300)) for _ in processes)
        seconds = time.perf_counter() - began
        for process in processes:
            process.join(60)
    assert claimed == count
    each = workers * seconds / count
    return f"{count / seconds:,.0f}", f"{1000 * queued / count:.1f}", f"{1000 * each:.1f}"


def _trained(folder: Path, store: Store, workers: int, count: int, kill_every: float | None = None) -> Run:
    with closing(open_database(store.url)) as database:
        enqueue(database, count)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        return train_all(store.url, _Workers(Path(made), store.url, workers), count, kill_every)


class _Workers:
    """So many workers; who is killed has a successor at once. See `benchmarks.short_jobs.Crew`."""

    places = 1

    def __init__(self, folder: Path, url: str, workers: int) -> None:
        self._folder, self._url = folder, url
        self._started = self._deaths = 0
        self._running = [self._start() for _ in range(workers)]

    def may_die(self) -> bool:
        """When the one whose turn it is has brought a job to its end.

        A worker that has not may be loading torch. The job that it holds is the first to be claimed after its death,
        most likely by its successor; were that killed while it loads, and the next, the job would be given up as what
        it looks like, a `crash_loop`.
        """
        _, notes = self._running[self._turn]
        return any(DONE in attempt for attempt in attempts_in(notes))

    def kill(self) -> None:
        process, _ = self._running[self._turn]
        process.kill()
        process.wait()
        self._running[self._turn] = self._start()
        self._deaths += 1

    def stop(self) -> None:
        for process, _ in self._running:
            process.terminate()
        for process, _ in self._running:
            process.wait(60)

    def notes(self) -> list[list[Attempt]]:
        return [attempts_in(file) for file in self._folder.glob("*.notes")]

    @property
    def _turn(self) -> int:
        return self._deaths % len(self._running)

    def _start(self) -> tuple[subprocess.Popen[bytes], Path]:
        self._started += 1
        notes = self._folder / f"{self._started}.notes"
        return start_worker(self._folder, notes, self._url, {}), notes


def _row(store: Store, workers: int, run: Run, count: int, remark: str = "") -> tuple[str, ...]:
    mean = statistics.mean(run.queueing or [0.0])
    parts = (1000 * statistics.median(part or [0.0]) for part in (run.claiming, run.telling, run.ending))
    medians = (f"{1000 * statistics.median(part or [0.0]):.0f}" for part in (run.forking, run.loading, run.training))
    return (
        store.name,
        str(workers),
        f"{60 * count / run.seconds:.0f}",
        f"{1000 * mean:.0f}",
        f"{1000 * nearest_rank(run.queueing or [0.0], 0.95):.0f}",
        at_most(1000 * mean, 1000 * BAR_SECONDS, " ms", 0),
        ", ".join(f"{part:.0f}" for part in parts),
        *medians,
        remark,
    )
