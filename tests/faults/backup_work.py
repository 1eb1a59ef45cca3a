"""`python -m tests.faults.backup_work FOLDER LEDGER`: backups and a restore for a power loss to hit.

All lies in one folder: the database, the backup and the database of before. What has returned is written to LEDGER.
"""

import json
import os
import sys
from contextlib import closing
from pathlib import Path

from app.store import corpora
from app.store.backup import back_up
from app.store.opening import open_database
from app.store.restore import restore


def main(folder: Path, ledger: Path) -> None:
    url, kept = f"sqlite:///{folder / 'charsmith.db'}", folder / "kept.db"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(what: str) -> None:
        os.write(descriptor, json.dumps({"state": what}).encode() + b"\n")

    for number, name in enumerate(("first", "second", "third")):
        with closing(open_database(url)) as database:
            corpora.add_corpus(database, [f"{name} text\n".encode() * 5_000], name)
            acknowledge(f"{name} stored")
            if number < 2:
                back_up(url, kept, force=number > 0)
                acknowledge(f"{name} backed up")
    restore(url, kept)
    acknowledge("second restored")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
