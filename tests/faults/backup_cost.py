"""`python -m tests.faults.backup_cost`: what a backup of a large database costs, and how long it makes writers wait.

A database of so many megabytes is made; one process writes to it all the time, small records and now and then a resume
point, while `charsmith backup` runs in another. Printed: the seconds and the memory of the backup, what writers waited
with and without it, and the largest size of the write-ahead log.
"""

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from app.store import corpora
from app.store.blobs import remove_blob, write_blob
from app.store.opening import open_database
from app.store.workers import announce
from tests.faults.power_loss_work import sqlite_for

MIB = 1024 * 1024
QUIET_SECONDS = 5.0
RESUME_POINT_BYTES = 20 * MIB
RESUME_POINT_SECONDS = 2.0


def text_of(megabytes: int) -> Iterator[bytes]:
    draw = random.Random(3)
    block = "".join(draw.choices("abcdefghijklmnop \n", k=MIB)).encode()
    for number in range(megabytes):
        yield block[:-8] + f"{number:08d}".encode()


def write_all_the_time(url: str, journal: str, told: Connection) -> None:
    """Small writes one after another, every few seconds a blob of many chunks; tells the longest wait when asked."""
    database = open_database(url, sqlite_module=sqlite_for(journal))
    draw, longest, count, blob_at = random.Random(4), 0.0, 0, time.monotonic()
    point = draw.randbytes(RESUME_POINT_BYTES)
    told.send("ready")
    while True:
        if told.poll():
            if told.recv() == "end":
                return
            told.send((count, longest))
            longest, count = 0.0, 0
        if time.monotonic() > blob_at + RESUME_POINT_SECONDS:
            remove_blob(database, write_blob(database, [point]).id)
            blob_at = time.monotonic()
        began = time.monotonic()
        announce(database, "busy", "cpu")
        longest, count = max(longest, time.monotonic() - began), count + 1
        time.sleep(0.002)


def watch_log(log: Path, largest: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.05):
        largest[0] = max(largest[0], log.stat().st_size if log.exists() else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--journal", choices=("wal", "delete"), default="wal")
    parser.add_argument("--folder", help="where the database and the backup are made")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        measure(Path(folder), given.megabytes, given.journal)


def measure(folder: Path, megabytes: int, journal: str) -> None:
    path = folder / "charsmith.db"
    database = open_database(f"sqlite:///{path}", sqlite_module=sqlite_for(journal))
    corpora.add_corpus(database, text_of(megabytes), "large")
    database.close()
    ours, theirs = multiprocessing.Pipe()
    arguments = (f"sqlite:///{path}", journal, theirs)
    writer = multiprocessing.get_context("spawn").Process(target=write_all_the_time, args=arguments)
    writer.start()
    ours.recv()
    time.sleep(QUIET_SECONDS)
    ours.send("tell")
    quiet = ours.recv()
    largest, stop = [0], threading.Event()
    watcher = threading.Thread(target=watch_log, args=(Path(f"{path}-wal"), largest, stop))
    watcher.start()
    began = time.monotonic()
    command = [sys.executable, "-m", "app.cli", "backup", str(folder / "kept.db"), "--data-dir", str(folder)]
    _, status, used = os.wait4(subprocess.Popen(command).pid, 0)
    assert status == 0
    seconds = time.monotonic() - began
    ours.send("tell")
    busy = ours.recv()
    ours.send("end")
    writer.join()
    stop.set()
    watcher.join()
    print(f"{path.stat().st_size / MIB:.0f} MiB, journal {journal}: backup {seconds:.1f} s")
    print(f"longest wait of a writer: {quiet[1]:.2f} s of {quiet[0]} without, {busy[1]:.2f} s of {busy[0]} during it")
    print(f"largest write-ahead log {largest[0] / MIB:.0f} MiB; memory of the backup {used.ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
