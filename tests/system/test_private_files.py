"""What is stored is its owner's alone."""

import os
import subprocess
import sys
from pathlib import Path

from tests.databases import sqlite_only


@sqlite_only
def test_nobody_else_may_read_the_data_folder_and_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHARSMITH_")}
    command = [sys.executable, "-m", "app.cli", "keys", "create", "first", "--data-dir", str(folder)]

    subprocess.run(command, env=environment, check=True, capture_output=True, umask=0o022)

    made = [folder, *folder.rglob("*")]
    assert folder / "charsmith.db" in made
    assert {oct(path.stat().st_mode & 0o077) for path in made} == {"0o0"}
