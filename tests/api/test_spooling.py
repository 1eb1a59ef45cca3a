"""Where an upload lies while it comes in: in the data folder, not in the system's, which may be a small memory disk."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import UploadFile

from app.routes import corpora
from app.routes.dependencies import pieces_of
from app.settings import Settings
from tests.api.service import Service, assert_problem, running

DESCRIPTORS = Path("/proc/self/fd")
LARGE = b"to be, or not to be\n" * 150_000
"""3 MB: the form parser holds 1 MiB in memory."""

pytestmark = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="a spool has no name; only /proc shows where it is")


@pytest.fixture
def service(data_dir: Path) -> Iterator[Service]:
    with running(Settings(data_dir=data_dir)) as made:
        yield made


def open_within(folder: Path) -> list[str]:
    """The open files of this process that lie in a folder, deleted ones included."""
    found = []
    for descriptor in DESCRIPTORS.iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # closed meanwhile, as that of this very listing
            continue
        if target.startswith(f"{folder.resolve()}/"):
            found.append(target)
    return found


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("path", ["/corpora", "/models"])
def test_a_disk_that_is_full_while_an_upload_comes_in_is_told_as_such(
    service: Service, monkeypatch: pytest.MonkeyPatch, number: int, path: str
) -> None:
    """The form parser writes; a 400 would say that the upload is wrong."""

    def write(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", write)

    answer = service.http.post(path, files={"file": ("hamlet.txt", LARGE)})

    assert assert_problem(answer, 507)["code"] == "disk_full"


def test_a_large_upload_is_spooled_in_the_data_folder_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = service.settings.temporary_dir / "uploads"
    seen: list[list[str]] = []

    def look(file: UploadFile) -> Iterator[bytes]:
        seen.append(open_within(uploads))
        return pieces_of(file)

    monkeypatch.setattr(corpora, "pieces_of", look)
    assert service.upload(LARGE).status_code == 201
    assert service.upload(b"a small one").status_code == 201
    assert [len(files) for files in seen] == [1, 0]
    assert open_within(uploads) == []
    assert list(uploads.iterdir()) == []
