"""Ends a text before the first of its stop strings, and never shows a part of one.

Knows no network. Invariant: what `feed` and `rest` returned, joined, is the text up to the first stop string, or all of
it; nothing that may yet become the beginning of a stop string is returned before that is decided.
"""

from collections.abc import Sequence


class StopStrings:
    """One text's watch for its stop strings, fed character by character."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._patterns = [_Pattern(stop) for stop in stops if stop]
        self._held = ""

    def feed(self, character: str) -> tuple[str, bool]:
        """The text that may now be shown, and whether a stop string is complete.

        If several complete with the same character, the text ends before the longest.
        """
        if not self._patterns:
            return character, False
        self._held += character
        matched = [pattern.feed(character) for pattern in self._patterns]
        complete = [len(p.stop) for p, length in zip(self._patterns, matched, strict=True) if length == len(p.stop)]
        shown = len(self._held) - (max(complete) if complete else max(matched))
        text, self._held = self._held[:shown], self._held[shown:]
        return text, bool(complete)

    def rest(self) -> str:
        """What was held back, to be shown when the text ends without a stop string."""
        text, self._held = self._held, ""
        return text


class _Pattern:
    """Knuth, Morris and Pratt 1977: how much of the stop string's beginning the text now ends with."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self._matched = 0
        self._fallback = [0] * (len(stop) + 1)  # of the first n characters: the longest proper border
        border = 0
        for n in range(1, len(stop)):
            while border and stop[n] != stop[border]:
                border = self._fallback[border]
            border += stop[n] == stop[border]
            self._fallback[n + 1] = border

    def feed(self, character: str) -> int:
        while self._matched and (self._matched == len(self.stop) or self.stop[self._matched] != character):
            self._matched = self._fallback[self._matched]
        self._matched += self.stop[self._matched] == character
        return self._matched
