"""`python -m tests.faults.power_loss`: what a power loss leaves of the database, tried ten thousand times.

Real work (power_loss_work) is recorded by strace; at moments throughout the record the files are made as a power loss
may leave them (lossy_disk), opened by the store, and checked: whole, in the state that was acknowledged last or the one
after it, every stored byte as its SHA-256 says, and fit for new work. Everything that is drawn follows from the seed;
with --keep the record itself is kept, and tried again with --record.
"""

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from sqlalchemy.exc import DBAPIError

from app.store import claims, corpora, jobs
from app.store.blobs import read_blob
from app.store.database import Database
from app.store.errors import StoreError
from app.store.opening import open_database
from app.store.sqlite_engine import newest_sqlite
from tests.faults.lossy_disk import Change, Disk, File, Renaming, Resize, Write
from tests.faults.power_loss_work import sqlite_for, state_of
from tests.faults.strace_record import Call, Descriptor, Text, calls, record

JOURNALS = ("wal", "delete")
RECORD_SECONDS = 120
TURNS = 20
AGAIN = 10
"""So many draws for each state that is missing: most come up again when there are few others, as there are just after a
commit with the rollback journal."""
ROOT = Path(__file__).parents[2]


class History:
    """What a recorded program did to a folder, call by call, and what it had acknowledged by then."""

    def __init__(self, folder: Path, acknowledgements: Path) -> None:
        self.disk = Disk()
        self.acknowledged = 0
        self._folder, self._acknowledgements = str(folder), str(acknowledgements)
        self._open: dict[int, File] = {}

    def moments(self, made: list[Call]) -> Iterator[None]:
        """After each moment at which the disk, or what is on it for sure, has changed."""
        ends = [(call.begins, call, False) for call in made] + [(call.returns, call, True) for call in made]
        under_way: dict[int, list] = {}
        for _, call, returns in sorted(ends, key=lambda end: end[0]):
            if not returns:
                under_way[call.begins] = begun = self._begin(call)
                if begun:
                    yield
            elif self._return(call, under_way.pop(call.begins)):
                yield

    def _begin(self, call: Call) -> list:
        """What the call changes, or makes durable, from now on perhaps."""
        match call.name, call.arguments:
            case (("open" | "openat" | "creat"), _):
                return self._opened(call)
            case "write", (Descriptor(_, path), *_) if path == self._acknowledgements:
                self.acknowledged += 1
                return [None]
            case "pwrite64", (Descriptor() as of, Text(data), _, str(offset)) if self._is_ours(of):
                return self._changed(of, Write(int(offset), data[: call.result]))
            case "ftruncate", (Descriptor() as of, str(size)) if self._is_ours(of):
                return self._changed(of, Resize(int(size)))
            case (("fsync" | "fdatasync"), (Descriptor(_, path),)) if path == self._folder:
                return [renaming for renaming in self.disk.pending if renaming.returned]
            case (("fsync" | "fdatasync"), (Descriptor() as of,)) if self._is_ours(of):
                return [change for change in self._open[of.number].pending if change.returned]
            case (("unlink" | "unlinkat"), arguments) if (name := self._names(arguments)[0]) is not None:
                return self._renamed(Renaming(taken=(name,)))
            case (("rename" | "renameat" | "renameat2" | "link" | "linkat"), arguments) if any(self._names(arguments)):
                old, new = self._names(arguments)
                assert old is not None, "from another folder"
                assert new is not None, "to another folder"
                gone = (old,) if call.name.startswith("rename") else ()
                return self._renamed(Renaming({new: self.disk.names[old]}, gone))
        touched = [one for one in call.arguments if isinstance(one, Descriptor) and self._is_ours(one)]
        assert not touched, f"not understood: {call.name} {touched}"
        return []

    def _opened(self, call: Call) -> list:
        name = self._names(call.arguments)[0]
        if name is None:
            return []
        begun: list = []
        flags = " ".join(one for one in call.arguments if isinstance(one, str)) + " " * (call.name == "creat")
        if name not in self.disk.names:
            assert "O_CREAT" in flags, f"{name} was there before the record"
            begun += self._renamed(Renaming({name: File()}))
        self._open[call.result] = self.disk.names[name]
        if "O_TRUNC" in flags:
            begun += self._change(self.disk.names[name], Resize(0))
        return begun

    def _is_ours(self, of: Descriptor) -> bool:
        return of.path.startswith(self._folder + "/")

    def _names(self, arguments: tuple) -> list[str | None]:
        paths = [Path(os.fsdecode(one.value)) for one in arguments if isinstance(one, Text)]
        return [path.name if str(path.parent) == self._folder else None for path in paths]

    def _changed(self, of: Descriptor, change: Change) -> list:
        return self._change(self._open[of.number], change)

    def _change(self, file: File, change: Change) -> list:
        file.pending.append(change)
        return [change]

    def _renamed(self, renaming: Renaming) -> list:
        self.disk.rename(renaming)
        return [renaming]

    def _return(self, call: Call, begun: list) -> bool:
        if call.name not in ("fsync", "fdatasync"):
            for change in begun:
                if change is not None:
                    change.returned = True
            return False
        of = call.arguments[0]
        assert isinstance(of, Descriptor)
        if of.path == self._folder:
            self.disk.synced(begun)
        elif self._is_ours(of):
            self._open[of.number].synced(begun)
        return bool(begun)


@dataclass(frozen=True)
class Recorded:
    """A record in a folder of its own: the calls, and the states that were acknowledged, oldest first."""

    folder: Path
    journal: str

    @property
    def acknowledgements(self) -> Path:
        return self.folder / "acknowledgements"

    @cached_property
    def calls(self) -> list[Call]:
        return calls(self.folder / "calls")

    @cached_property
    def states(self) -> list[str]:
        """As numbers: see `state_of`."""
        return [json.loads(line)["state"] for line in self.acknowledgements.read_text().splitlines()]

    def history(self) -> History:
        return History(self.folder / "data", self.acknowledgements)


def record_work(folder: Path, journal: str, synchronous: str = "as-it-is", *, steps: int = 11) -> Recorded:
    """The work, with so many steps of training, done and recorded."""
    folder = folder.resolve()
    (folder / "data").mkdir(parents=True)
    recorded = Recorded(folder, journal)
    arguments = [str(folder / "data"), str(recorded.acknowledgements), journal, synchronous, str(steps)]
    command = [sys.executable, "-m", "tests.faults.power_loss_work", *arguments]
    (folder / "journal").write_text(journal)
    record(command, folder / "calls", cwd=ROOT, timeout=RECORD_SECONDS)
    return recorded


@dataclass(frozen=True)
class State:
    """Files as a power loss may leave them, and the states of the database that are right then."""

    moment: int
    files: dict[str, bytes]
    allowed: tuple[str, ...]


def states(recorded: Recorded, count: int, seed: int) -> Iterator[State]:
    """So many different ones, at moments all over the record; half of them just after something was acknowledged.

    A few come twice, when more had been acknowledged and the files were still the same.
    """
    moments, after_acknowledgement = moments_of(recorded)
    seen: dict[bytes, set[int]] = {}
    for turn in range(TURNS):
        if len(seen) >= count:
            return
        draw = Random(f"{seed} {turn}")
        missing = count - len(seen)
        # Sorted by time below, so the first turn must not be full before the record has come to its end.
        wanted = missing * (1 if turn == 0 else AGAIN) // 2 + 1
        times = draw.choices(range(moments), k=wanted) + draw.choices(after_acknowledgement, k=wanted)
        yield from _turn(recorded, sorted(times), draw, seen, count)
    raise AssertionError(f"no more than {len(seen)} different states came up")


def _turn(
    recorded: Recorded, times: list[int], draw: Random, seen: dict[bytes, set[int]], count: int
) -> Iterator[State]:
    history = recorded.history()
    for moment, _ in enumerate(history.moments(recorded.calls)):
        while times and times[0] == moment and len(seen) < count:
            times.pop(0)
            files = history.disk.after_power_loss(draw)
            tried = seen.setdefault(_fingerprint(files), set())
            if history.acknowledged not in tried:  # the same files must hold more once more is acknowledged
                tried.add(history.acknowledged)
                last = history.acknowledged - 1
                yield State(moment, files, tuple(recorded.states[max(last, 0) : last + 2]))


def moments_of(recorded: Recorded) -> tuple[int, list[int]]:
    """How many there are, and those just after something was acknowledged."""
    history, acknowledged, after, moment = recorded.history(), 0, [], 0
    for moment, _ in enumerate(history.moments(recorded.calls)):
        if history.acknowledged > acknowledged:
            acknowledged = history.acknowledged
            after.append(moment)
    return moment + 1, after


def _fingerprint(files: dict[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name, content in files.items():
        if not name.endswith("-shm"):
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.digest()


def problem_of(state: State, journal: str, folder: Path) -> str | None:
    """What is wrong with the database that is recovered from a state; None if nothing is."""
    folder.mkdir(parents=True)
    for name, content in state.files.items():
        # The index of the log is never synced: whatever stands there must not be believed.
        (folder / name).write_bytes(Random(state.moment).randbytes(32_768) if name.endswith("-shm") else content)
    path = folder / "charsmith.db"
    logging.disable()  # each opening would warn of the rollback journal
    try:
        with closing(open_database(f"sqlite:///{path}", sqlite_module=sqlite_for(journal))) as opened:
            return _damage(opened, path, state.allowed) or _unfit(opened)
    except (StoreError, DBAPIError, newest_sqlite().Error) as error:
        return f"not usable: {error}"
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(folder)


def _damage(database: Database, path: Path, allowed: tuple[str, ...]) -> str | None:
    with closing(newest_sqlite().connect(path, isolation_level=None)) as connection:
        if (found := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            return f"not whole: {found[:3]}"
        if found := connection.execute("PRAGMA foreign_key_check").fetchall():
            return f"dangling references: {found[:3]}"
        kept = connection.execute("SELECT id FROM blobs WHERE stage IN ('kept', 'written')").fetchall()
        state = state_of(connection)
    for (blob_id,) in kept:
        for _ in read_blob(database, blob_id):
            pass
    return None if state in allowed else "acknowledged work is missing"


def _unfit(database: Database) -> str | None:
    """New work: an upload, a job, and a claim on the one that comes first."""
    corpus = corpora.add_corpus(database, [b"after the power came back\n" * 9], "after").corpus
    jobs.enqueue(database, name="after", corpus_id=corpus.id, model={"cell": "gru"}, training={"steps": 1})
    return None if claims.claim_next(database, "worker-after") else "the new job cannot be claimed"


@dataclass
class Verdict:
    """How many states were tried, and what was wrong."""

    tried: int
    problems: list[str]


def try_states(recorded: Recorded, count: int, seed: int, folder: Path, processes: int = 1) -> Verdict:
    """Each state opened and checked, in so many processes."""
    tried = enumerate(states(recorded, count, seed))
    tasks = ((state, recorded.journal, folder / str(number)) for number, state in tried)
    verdict = Verdict(0, [])
    if processes == 1:
        results: Iterator[str | None] = map(_try, tasks)
        return _counted(verdict, results)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return _counted(verdict, pool.imap_unordered(_try, tasks))


def _try(task: tuple[State, str, Path]) -> str | None:
    state, journal, folder = task
    problem = problem_of(state, journal, folder)
    sizes = {name: len(content) for name, content in state.files.items()}
    return problem and f"at moment {state.moment}, {sizes}: {problem}"


def _counted(verdict: Verdict, results: Iterator[str | None]) -> Verdict:
    for problem in results:
        verdict.tried += 1
        if problem:
            verdict.problems.append(problem)
    return verdict


def memory_folder() -> str | None:
    """Where syncs cost nothing, if there is such a place: recovering is tried here, not lost."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=10_000, help="in all, half of them with each journal")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--journal", choices=JOURNALS)
    parser.add_argument("--synchronous", default="as-it-is", help="OFF, NORMAL or FULL: what is lost then")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep the records in this new folder")
    parser.add_argument("--record", type=Path, help="a record that was kept, instead of new ones")
    given = parser.parse_args()
    journals = [given.journal] if given.journal else list(JOURNALS)
    bad = 0
    with tempfile.TemporaryDirectory(dir=memory_folder()) as scratch:
        base = given.keep or Path(scratch)
        recorded = (
            [Recorded(given.record.resolve(), (given.record / "journal").read_text())]
            if given.record
            else [record_work(base / journal, journal, given.synchronous) for journal in journals]
        )
        for one in recorded:
            began = time.monotonic()
            verdict = try_states(
                one, given.states // len(recorded), given.seed, Path(scratch) / "states", given.processes
            )
            print(
                f"{one.journal}: {given.states // len(recorded)} different states at {moments_of(one)[0]} moments, "
                f"{len(one.states)} acknowledgements, {verdict.tried} tries, {len(verdict.problems)} bad, "
                f"{time.monotonic() - began:.0f} s"
            )
            print("\n".join(verdict.problems[:5]))
            bad += len(verdict.problems)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
