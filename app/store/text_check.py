"""Whether bytes are a text that can be trained on, found out while they stream by.

Knows no database. Invariant: the pieces let through, joined, are the valid UTF-8 of at least two characters, without a
byte order mark and without NUL (PostgreSQL stores none, and it marks binary files); offsets count the bytes given.
"""

import codecs
from collections.abc import Iterable, Iterator

from app.store.characters import Characters

PREVIEW_CHARACTERS = 200

# Longest first: UTF-32's little-endian mark begins with UTF-16's.
_FOREIGN_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class NotText(ValueError):
    """The bytes are not a text that can be trained on. The message says what is wrong, and at which byte."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class TextCheck:
    """Counts a text while `checked` passes it on. The counts are complete when that is exhausted."""

    def __init__(self) -> None:
        self.characters = 0
        self.preview = ""
        self.mark_dropped = False
        self.different = Characters()
        self._offset = 0

    def checked(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces, cut between characters, without a byte order mark. Raises NotText."""
        held = b""
        for piece in self._unmarked(pieces):
            data = held + piece if held else piece
            used = self._take(data, final=False)
            held = data[used:]
            yield data[:used]
        self._take(held, final=True)
        if self.characters < 2:
            raise NotText("the text is empty" if self.characters == 0 else "the text is one character, 2 are needed")

    def _unmarked(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes without the mark of UTF-8. The first piece is long enough to tell the marks."""
        stream = iter(pieces)
        first = b""
        for piece in stream:
            first += piece
            if len(first) >= len(codecs.BOM_UTF32_LE):
                break
        for mark, encoding in _FOREIGN_MARKS:
            if first.startswith(mark):
                raise NotText(f"the text is {encoding} (byte order mark at byte 0), not UTF-8: save it as UTF-8", 0)
        if first.startswith(codecs.BOM_UTF8):
            self.mark_dropped = True
            self._offset = len(codecs.BOM_UTF8)
        yield first[self._offset :]
        yield from stream

    def _take(self, data: bytes, *, final: bool) -> int:
        """How many bytes of `data` are whole characters; they are counted."""
        nul = data.find(0)
        try:
            text, used = codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            if 0 <= nul < error.start:
                raise self._nul(nul) from error
            byte, at = data[error.start], self._offset + error.start
            raise NotText(f"not UTF-8: byte 0x{byte:02x} at byte {at} ({error.reason})", at) from error
        if 0 <= nul < used:
            raise self._nul(nul)
        self._count(text, data[:used])
        self._offset += used
        return used

    def _nul(self, index: int) -> NotText:
        at = self._offset + index
        return NotText(f"a NUL character at byte {at}: this is no text, or not UTF-8", at)

    def _count(self, text: str, data: bytes) -> None:
        self.characters += len(text)
        if len(self.preview) < PREVIEW_CHARACTERS:
            self.preview += text[: PREVIEW_CHARACTERS - len(self.preview)]
        self.different.add(text, data)
