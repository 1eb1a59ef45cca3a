"""A disk that loses power: what a folder's files may be afterwards, after the calls that programs made.

Knows no database and no tracing. The model is harsher than file systems are. What was written before the last
completed sync of a file is there. Of what came later any sectors are, in any order, each new or as it was; the file is
as long as it ever was meanwhile; where it grew and nothing came to the disk stand zeros or rubbish. Names that were
made, changed or removed since the last sync of the folder are so or as before, whether or not the file was synced.
Not modelled: damage to sectors that nobody wrote to (SQLite's "powersafe overwrite", which it takes for granted too).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

SECTOR_BYTES = (512, 4096)

Made = TypeVar("Made")


@dataclass(slots=True, eq=False)
class Write:
    """Bytes at an offset. `returned`: the call has, so a sync that begins now covers it."""

    offset: int
    data: bytes
    returned: bool = False

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(slots=True, eq=False)
class Resize:
    """The file is cut, or grows by zeros."""

    size: int
    returned: bool = False


Change = Write | Resize


@dataclass(slots=True, eq=False)
class File:
    """What is surely on the disk, and the changes that may be, oldest first."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def synced(self, changes: Sequence[Change]) -> None:
        """These, made before a sync began that has returned, are on the disk."""
        for change in changes:
            apply(self.durable, change)
        self.pending = without(self.pending, changes)


@dataclass(slots=True, eq=False)
class Renaming:
    """What one call does to the names of the folder: all of it or nothing."""

    given: dict[str, File] = field(default_factory=dict)
    taken: tuple[str, ...] = ()
    returned: bool = False

    def do(self, names: dict[str, File]) -> None:
        for name in self.taken:
            names.pop(name, None)
        names.update(self.given)


class Disk:
    """One folder, as programs see it (`names`) and as a power loss may leave it."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self.pending: list[Renaming] = []
        self._durable: dict[str, File] = {}

    def rename(self, renaming: Renaming) -> None:
        renaming.do(self.names)
        self.pending.append(renaming)

    def synced(self, renamings: Sequence[Renaming]) -> None:
        """As `File.synced`, for the folder's own entries."""
        for renaming in renamings:
            renaming.do(self._durable)
        self.pending = without(self.pending, renamings)

    def after_power_loss(self, draw: Random) -> dict[str, bytes]:
        """One of the states that may be found, by name."""
        names = dict(self._durable)
        for renaming in in_order(survivors(draw, self.pending), self.pending):
            renaming.do(names)
        sector = draw.choice(SECTOR_BYTES)
        rubbish = draw.choice((bytes(sector), draw.randbytes(sector)))
        return {name: _content(draw, names[name], sector, rubbish) for name in sorted(names)}


def without(all_: list[Made], gone: Sequence[Made]) -> list[Made]:
    """Those that are left, by identity."""
    ids = set(map(id, gone))
    return [one for one in all_ if id(one) not in ids]


def in_order(some: list[Made], of: list[Made]) -> list[Made]:
    """Names change in the order in which they were changed; only which changes survive is left to chance."""
    ids = set(map(id, some))
    return [one for one in of if id(one) in ids]


def survivors(draw: Random, made: list[Made]) -> list[Made]:
    """Those that came to the disk, in the order in which they did."""
    if not made:
        return []
    match draw.randrange(7):
        case 0:
            return []
        case 1:
            return made
        case 2:
            return made[: draw.randrange(len(made) + 1)]
        case 3:
            return [draw.choice(made)]
        case 4:
            return without(made, [draw.choice(made)])
        case _:
            share = draw.choice((0.1, 0.5, 0.9))
            some = [one for one in made if draw.random() < share]
            draw.shuffle(some)
            return some


def _content(draw: Random, file: File, sector: int, rubbish: bytes) -> bytes:
    content = bytearray(file.durable)
    for change in survivors(draw, list(_torn(file.pending, sector))):
        apply(content, change, rubbish)
    sizes = [size for size in _sizes(file) if size > len(content)]
    if sizes and draw.random() < 0.5:  # the length came to the disk before what it is the length of
        apply(content, Resize(draw.choice(sizes)), rubbish)
    return bytes(content)


def _torn(changes: list[Change], sector: int) -> Iterator[Change]:
    """The same changes, writes cut where sectors of the disk begin."""
    for change in changes:
        if isinstance(change, Resize):
            yield change
            continue
        at = change.offset
        while at < change.end:
            end = min(change.end, (at // sector + 1) * sector)
            yield Write(at, change.data[at - change.offset : end - change.offset])
            at = end


def _sizes(file: File) -> Iterator[int]:
    """How long the file was since its last sync."""
    size = len(file.durable)
    for change in file.pending:
        size = change.size if isinstance(change, Resize) else max(size, change.end)
        yield size


def apply(content: bytearray, change: Change, rubbish: bytes = b"\0") -> None:
    """Make a change to the content; where it grows and nothing is written, rubbish stands."""
    size = change.size if isinstance(change, Resize) else max(change.end, len(content))
    if size < len(content):
        del content[size:]
    elif size > len(content):
        grown = size - len(content)
        content += (rubbish * (grown // len(rubbish) + 1))[:grown]
    if isinstance(change, Write):
        content[change.offset : change.end] = change.data
