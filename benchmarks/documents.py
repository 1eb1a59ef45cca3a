"""The tables of docs/benchmarks.md, written by the run that measured them.

The page is written by hand; between a part's two markers stands what was measured last. Nothing else is touched.
"""

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Report

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
PLACES = {"--nanogpt": "NANOGPT", "--corpus": "FILE"}
"""What stands for the folders and files of one machine."""


def write_part(page: Path, part: str, reports: Sequence[Report], machine: str, command: str) -> None:
    """Put a part's tables in the place of those that are there. The page has its markers, else ValueError."""
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->\n"
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{page} has no place for {part}")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = f"Measured on {today} by `{command}`: {machine}.\n"
    tables = "\n".join([head, *(report.markdown() for report in reports)])
    page.write_text(before + begin + tables + end + after, encoding="utf-8")


def command_line(arguments: Sequence[str], part: str) -> str:
    """The command that measures this part again, without this machine's paths and without writing."""
    words, value_of, dropped = ["python", "-m", "benchmarks", "--only", part], "", {"--only", "--write-docs"}
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if argument.startswith("--"):
            value_of = "" if equals else name
            if name not in dropped:
                words.append(f"{name}={PLACES[name]}" if equals and name in PLACES else shlex.quote(argument))
        elif value_of not in dropped:
            words.append(PLACES.get(value_of, shlex.quote(argument)))
    return " ".join(words)
