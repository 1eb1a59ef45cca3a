"""`python -m tests.audit`: known weaknesses of everything that is pinned, by pip-audit, a part of `make check`.

Ends with 1 if there is one. Where its database cannot be reached, or knows none of the packages, as behind a mirror, it
says so and ends with 0: the floors of tests/unit/test_versions.py hold in any case.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 120.0
OFFLINE = "known weaknesses: their database could not be reached, nothing was looked up"


def judged(answer: str) -> tuple[int, list[str]]:
    """How many packages were looked up, and what is known of them. Raises ValueError if it is no answer."""
    packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    looked_up = [package for package in packages if "vulns" in package]
    found = [
        f"{package['name']} {package['version']}: {weakness['id']}, mended in {weakness['fix_versions'] or 'none yet'}"
        for package in looked_up
        for weakness in package["vulns"]
    ]
    return len(looked_up), found


def requirements() -> str:
    """All that is pinned, torch included."""
    torch = re.search(r'"(torch==[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert torch, "torch is pinned in pyproject.toml"
    return f"{(ROOT / 'constraints.txt').read_text()}\n{torch[1]}\n"


def ask() -> str:
    """pip-audit's answer; empty if it has none."""
    options = ["--format=json", "--progress-spinner=off", "--disable-pip", "--no-deps", "--requirement=/dev/stdin"]
    command = [sys.executable, "-m", "pip_audit", *options]
    try:
        asked = subprocess.run(
            command, input=requirements(), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return asked.stdout


def main() -> None:
    try:
        number, found = judged(ask())
    except ValueError:
        number, found = 0, []
    print(f"known weaknesses: {len(found)} of {number} packages" if number else OFFLINE)
    for line in found:
        print(line)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
