"""The fenced code blocks of the README, in its languages, and of docs/*.md, by page and order.

Knows nothing of how they are run. Invariant: whatever a reader sees as a block is one here; a fence that is never
closed, or has no language, is an error and not the end of what is looked at.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*(\S*)")


@dataclass(frozen=True)
class Block:
    """A block and where it stands."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language})"


class BrokenFence(ValueError):
    """A block that cannot be told from what is around it, or has no language."""


def pages() -> list[str]:
    """The pages that have blocks to run, by their paths in the repository."""
    return [
        "README.md",
        "README.zh-CN.md",
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
    ]


def blocks_of(page: str, *languages: str) -> list[Block]:
    """The blocks of a page in order, of these languages if any are named. Raises BrokenFence."""
    found = blocks_in(page, (ROOT / page).read_text().splitlines())
    return [block for block in found if not languages or block.language in languages]


def blocks_in(page: str, lines: Iterable[str]) -> Iterator[Block]:
    """The same of a page's lines."""
    fence, begun, language, inside = "", 0, "", [""]
    for number, line in enumerate(lines, 1):
        found = _FENCE.match(line)
        if not fence and found:
            fence, begun, language, inside = found[1], number, found[2], []
            if not language:
                raise BrokenFence(f"{page}:{number}: a block without a language; output is `text`")
        elif fence and line.strip() == fence:
            yield Block(page, begun, language, "".join(f"{line}\n" for line in inside))
            fence = ""
        else:
            inside.append(line)
    if fence:
        raise BrokenFence(f"{page}:{begun}: a block that does not end")
