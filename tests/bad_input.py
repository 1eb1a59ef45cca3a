"""Every bad input that we know, sent to a running service: `python -m tests.bad_input [URL]` prints the table.

Without a URL it starts a service of its own, on loopback and an empty data folder. Ends with 1 if an answer is wrong.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.bad_inputs.run import Result, Run, scene
from tests.system.harness import Installation

OWN_LIMIT_BYTES = 1_000_000
WIDTH = 100


@contextlib.contextmanager
def own_service() -> Iterator[str]:
    """A service without a worker whose largest text is small; its address."""
    with tempfile.TemporaryDirectory() as folder:
        made = Installation(Path(folder))
        made.environment["CHARSMITH_MAX_CORPUS_BYTES"] = str(OWN_LIMIT_BYTES)
        try:
            made.start_api()
            yield made.url
        finally:
            made.close()


def row(result: Result) -> str:
    """A line of the Markdown table."""
    answer, code = result.answer, result.answer.document().get("code", "")
    detail = " ".join(result.detail.split()).replace("|", "\\|")
    if answer.sent_bytes > 1_000_000:
        detail += f" (after {answer.sent_bytes / 1e6:.1f} MB)"
    cells = [result.case.what.replace("|", "\\|"), str(answer.status), code, detail]
    wrong = f" **{'; '.join(result.wrong)}**" if result.wrong else ""
    return "| " + " | ".join(c if len(c) <= WIDTH else c[: WIDTH - 1] + "…" for c in cells) + f"{wrong} |"


def print_table(url: str, limit_bytes: int) -> int:
    """The number of wrong answers."""
    print("| input | status | code | detail |\n| --- | --- | --- | --- |")
    wrong = number = 0
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http, scene(http):
        for result in Run(http, limit_bytes).results():
            print(row(result), flush=True)
            number += 1
            wrong += bool(result.wrong)
    print(f"\n{number} inputs, {wrong} wrong answers", file=sys.stderr)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", help="a running service, whose texts, jobs and models stay as they are")
    parser.add_argument("--max-corpus-bytes", type=int, default=2**30, help="its CHARSMITH_MAX_CORPUS_BYTES")
    given = parser.parse_args()
    if given.url:
        sys.exit(print_table(given.url, given.max_corpus_bytes) > 0)
    with own_service() as url:
        wrong = print_table(url, OWN_LIMIT_BYTES)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
