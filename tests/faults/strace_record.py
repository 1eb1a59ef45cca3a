"""What a program did to the files of a folder, recorded by strace.

Knows no database. Invariant: a record holds every call that changes the folder's files or makes them durable, with its
bytes; what the parser does not understand, or was cut off, is an error and never left out.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHANGING = (
    "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,"
    "fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat"
)
LONGEST_WRITE = 2 * 1024 * 1024

_COMPLETE = re.compile(rb"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?(?: .*)?$")
_BEGUN = re.compile(rb"(\d+) +(\w+)\((.*?) *<unfinished \.\.\.>$")
_RESUMED = re.compile(rb"(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_ENDING = re.compile(rb"(.*)\) += (-?\d+|\?)(?:<(.*?)>)?(?: .*)?$")
_NO_CALL = re.compile(rb"(\d+) +(\+\+\+|---) ")
_ARGUMENT = re.compile(rb'"(?P<text>(?:\\x..)*)"(?P<cut>\.\.\.)?|(?P<fd>\d+)<(?P<path>(?:\\x..)*)>|(?P<plain>[^,\s]+)')


@dataclass(frozen=True, slots=True)
class Call:
    """One call that succeeded. `begins` and `returns` are its places among the lines of the record: 2n and 2n + 1."""

    name: str
    begins: int
    returns: int
    arguments: tuple["Text | Descriptor | str", ...]
    result: int


@dataclass(frozen=True, slots=True)
class Text:
    """Bytes that were handed over: a path, or what was written."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open file, and the path by which strace knows it."""

    number: int
    path: str


def strace_works() -> bool:
    """Whether strace is there and may trace a child here."""
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode == 0


def record(command: Sequence[str], file: Path, *, cwd: Path, timeout: float) -> None:
    """Run a command, its calls recorded in `file`. Raises CalledProcessError, TimeoutExpired."""
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", str(LONGEST_WRITE), "-e", f"trace={CHANGING}"]
    subprocess.run([*strace, "-o", str(file), *command], check=True, cwd=cwd, timeout=timeout)


def calls(file: Path) -> list[Call]:
    """The calls that succeeded, by when they began."""
    with file.open("rb") as lines:
        return sorted(_calls(lines), key=lambda call: call.begins)


def _calls(lines: Iterator[bytes]) -> Iterator[Call]:
    begun: dict[bytes, tuple[int, bytes]] = {}
    for number, raw in enumerate(lines):
        line = raw.rstrip(b"\n")
        if match := _COMPLETE.match(line):
            _, name, arguments, result, _ = match.groups()
            yield from _call(name, 2 * number, 2 * number + 1, arguments, result)
        elif match := _BEGUN.match(line):
            process, _, arguments = match.groups()
            begun[process] = (2 * number, arguments)
        elif match := _RESUMED.match(line):
            process, name, rest = match.groups()
            ending = _ENDING.match(rest)
            assert ending, f"not understood: {line[:200]!r}"
            began, arguments = begun.pop(process)
            yield from _call(name, began, 2 * number + 1, arguments + ending[1], ending[2])
        else:
            assert _NO_CALL.match(line), f"not understood: {line[:200]!r}"


def _call(name: bytes, begins: int, returns: int, arguments: bytes, result: bytes) -> Iterator[Call]:
    if result != b"?" and int(result) >= 0:
        yield Call(name.decode(), begins, returns, tuple(_arguments(arguments)), int(result))


def _arguments(text: bytes) -> Iterator[Text | Descriptor | str]:
    for match in _ARGUMENT.finditer(text):
        assert not match["cut"], "a write longer than LONGEST_WRITE"
        if match["text"] is not None:
            yield Text(_bytes(match["text"]))
        elif match["fd"] is not None:
            yield Descriptor(int(match["fd"]), _bytes(match["path"]).decode())
        else:
            yield match["plain"].decode()


def _bytes(escaped: bytes) -> bytes:
    return bytes.fromhex(escaped.replace(b"\\x", b"").decode())
