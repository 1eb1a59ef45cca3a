"""Where an upload lies while it comes in: in the data folder, not in the system's, which may be a small memory disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import UploadFile

from app.routes import corpora
from app.routes.dependencies import pieces_of
from app.settings import Settings
from tests.api.service import Service, running

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
