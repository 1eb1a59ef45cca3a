"""Puts a download into a file: beside it first, and under its name once it is whole.

Knows no model and no corpus. Invariant: a file of the wanted name is the old one or the whole new one, never a part.
"""

import os
import tempfile
from email.message import Message
from pathlib import Path

import httpx

from app.client import ClientError


def save(response: httpx.Response, wanted: Path | None, *, force: bool) -> Path:
    """The file that a download became: `wanted`, or in that folder the name that the service gives it.

    Raises ClientError if it is there already, unless forced, and if fewer bytes came than were announced.
    """
    target = wanted if wanted is not None and not wanted.is_dir() else (wanted or Path()) / _announced_name(response)
    _refuse_existing(target, force)
    if not target.parent.is_dir():
        raise ClientError(f"there is no folder {target.parent}")
    descriptor, part = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in response.iter_raw():
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
            _check_whole(response, file.tell())
        _refuse_existing(target, force)
        os.replace(part, target)
    except BaseException:
        os.unlink(part)
        raise
    return target


def _check_whole(response: httpx.Response, size: int) -> None:
    announced = response.headers.get("Content-Length")
    if announced is not None and size != int(announced):
        raise ClientError(f"{announced} bytes were announced, {size} came")


def _refuse_existing(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise ClientError(f"{target} exists already; --force replaces it")


def _announced_name(response: httpx.Response) -> str:
    """Without its folders: the service must not choose where on this machine something is written."""
    header = Message()
    header["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    name = Path(header.get_filename() or "").name
    if not name or name.startswith("."):
        raise ClientError("the service names no file: give one")
    return name
