"""What a Ray cluster makes of short jobs, by one node and two of a core each, and while nodes are killed; and how soon
a training on a node ends that somebody wants to end.

The nodes are real ones on this machine, the state is on SQLite. Skipped, saying so, where Ray is not installed.
"""

import statistics
import tempfile
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import select

from app.store.opening import open_database
from app.store.schema import jobs as job_rows
from benchmarks.figures import Report, at_most
from benchmarks.options import Extent, Options
from benchmarks.short_jobs import Attempt, Run, attempts_in, enqueue, start_worker, train_all
from tests.cluster.driven import LATER, DrivenCluster
from tests.system.harness import Installation, wait_for

JOBS: dict[Extent, int] = {"full": 200, "short": 20, "tiny": 2}
NODES: dict[Extent, tuple[int, ...]] = {"full": (1, 2), "short": (2,), "tiny": (2,)}
KILL_EVERY_SECONDS = 10.0
TRIES: dict[Extent, int] = {"full": 10, "short": 3, "tiny": 1}
REACH_SECONDS = 5.0
"""The bar."""


def measure_cluster(folder: Path, options: Options) -> list[Report]:
    if find_spec("ray") is None:
        return [Report("Not measured", (), (), ("Ray is an extra: pip install 'charsmith[ray]'",))]
    count = JOBS[options.extent]
    rows = [_row(nodes, _trained(folder, nodes, count), count) for nodes in NODES[options.extent]]
    if options.extent != "tiny":
        killed = _trained(folder, 2, count, KILL_EVERY_SECONDS)
        remark = f"a node killed every {killed.seconds / max(killed.deaths, 1):.0f} s, {killed.deaths} times: "
        rows.append(_row(2, killed, count, f"{remark}0 lost, 0 twice, {killed.attempts - count} attempts more"))
    return [
        Report(
            f"{count} short jobs on a Ray cluster",
            (
                *("nodes", "jobs per minute", "queue, ms per job", "claim, tell, end"),
                *("process, ms", "loading, ms", "training, ms", ""),
            ),
            tuple(rows),
            (
                "The jobs of the table of workers, a dispatcher and nodes with one core each, all on this machine, the "
                "database on SQLite. Medians, but queue, a mean.",
                "queue: as there, for each of a dispatcher's places; its end waits for the node to have cleared up. "
                "process: until a node has begun a process for the training, this has loaded Ray and PyTorch and said "
                "its first word. A node is killed 10 s after the last one, or once all jobs that a death has met are "
                "over: three deaths of a job without progress would count as its own. It has a successor at once. "
                "Where nodes die, what a place waits for is no queue, and is not told.",
            ),
        ),
        _reach(folder, TRIES[options.extent]),
    ]


def _reach(folder: Path, tries: int) -> Report:
    """How long a training on a node goes on after a person has asked for its end."""
    waits: dict[str, list[float]] = {"cancel": [], "pause": []}
    with tempfile.TemporaryDirectory(dir=folder) as made:
        (own := Path(made) / "installed").mkdir()
        nodes, at = DrivenCluster(Path(made), nodes=1), Installation(own)
        try:
            at.start_api()
            at.environment |= nodes.environment | {"CHARSMITH_EXECUTOR": "ray", "RAY_ADDRESS": nodes.address}
            at.upload()
            at.start("worker")
            for _ in range(tries):
                for verb, status in (("cancel", "cancelled"), ("pause", "paused")):
                    job = at.submit(steps=1_000_000, evaluate_every=100)
                    at.wait_for_step(job["id"], 100, seconds=LATER)
                    asked_at = time.monotonic()
                    at.http.post(f"/jobs/{job['id']}/{verb}").raise_for_status()
                    at.wait_for_status(job["id"], status)
                    wait_for("nothing to be at work", lambda: not nodes.at_work() or None)
                    waits[verb].append(time.monotonic() - asked_at)
        finally:
            at.close()
            nodes.close()
    rows = tuple(
        (
            verb,
            str(tries),
            f"{statistics.median(took):.2f} s",
            f"{max(took):.2f} s",
            at_most(max(took), REACH_SECONDS, " s", 0),
        )
        for verb, took in waits.items()
    )
    told = "From the request over HTTP until the job has its status and nothing of it is at work on the node."
    return Report("How soon a node hears of it", ("asked", "times", "median", "longest", "bar"), rows, (told,))


def _trained(folder: Path, nodes: int, count: int, kill_every: float | None = None) -> Run:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        url = f"sqlite:///{made}/charsmith.db"
        with closing(open_database(url)) as database:
            enqueue(database, count)
        return train_all(url, _Dispatched(Path(made), url, nodes), count, kill_every)


class _Dispatched:
    """A dispatcher and its nodes, of which each that is killed has a successor. See `benchmarks.short_jobs.Crew`."""

    def __init__(self, folder: Path, url: str, nodes: int) -> None:
        self.places = nodes
        self._notes = folder / "dispatcher.notes"
        self._cluster = DrivenCluster(folder, nodes=nodes)
        try:
            ray = {"CHARSMITH_EXECUTOR": "ray", "RAY_ADDRESS": self._cluster.address} | {
                name: value for name, value in self._cluster.environment.items() if name.startswith("RAY_")
            }
            self._dispatcher = start_worker(folder, self._notes, url, ray)
        except BaseException:
            self._cluster.close()
            raise
        self._database = open_database(url)

    def may_die(self) -> bool:
        """When every job that a death has met is over: three without progress look like a crash of its own."""
        with self._database.read() as connection:
            met = select(job_rows.c.id).where(job_rows.c.finished_at.is_(None), job_rows.c.crashes > 0)
            return connection.execute(met).first() is None

    def kill(self) -> None:
        self._cluster.order(f"kill {self._cluster.living[0]}")  # the oldest
        self._cluster.order("add")

    def stop(self) -> None:
        self._dispatcher.terminate()
        self._dispatcher.wait(60)
        self._cluster.close()
        self._database.close()

    def notes(self) -> list[list[Attempt]]:
        return [attempts_in(self._notes)]


def _row(nodes: int, run: Run, count: int, remark: str = "") -> tuple[str, ...]:
    def median(part: list[float]) -> str:
        return f"{1000 * statistics.median(part or [0.0]):.0f}"

    queue = (
        f"{1000 * statistics.mean(run.queueing or [0.0]):.0f}",
        ", ".join(map(median, (run.claiming, run.telling, run.ending))),
    )
    return (
        str(nodes),
        f"{60 * count / run.seconds:.0f}",
        *(("", "") if run.deaths else queue),
        *map(median, (run.forking, run.loading, run.training)),
        remark,
    )
