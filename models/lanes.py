"""How a text is cut into lanes and windows: the numbers alone, without the text.

Knows no torch, so that the service may ask how large a step will be. Invariant: what a step reads has the sizes that
are told here.
"""

from typing import NamedTuple


class Cut(NamedTuple):
    """Parallel lanes over a text, each read in windows, one a step."""

    lanes: int
    lane_characters: int
    """Predictions of one lane's pass."""
    windows: int

    @property
    def longest_window(self) -> int:
        """Characters that one lane reads in a step, at most; some windows have one less."""
        return -(-self.lane_characters // self.windows)


def cut_into_lanes(characters: int, lanes: int, sequence_length: int) -> Cut:
    """The cut of a text's training part, which has at least `sequence_length` + 1 characters.

    Lanes are fewer than asked for where one would not fill a sequence. Windows are `sequence_length` long or just
    below, all of one length but for one character: a short rest at the end would be a step as large as any on far less
    evidence.
    """
    predictions = characters - 1
    assert predictions >= sequence_length, "the caller checks the minimum"
    lanes = min(lanes, predictions // sequence_length)
    lane_characters = -(-predictions // lanes)  # rounded up: lanes may overlap by one character
    return Cut(lanes, lane_characters, -(-lane_characters // sequence_length))
