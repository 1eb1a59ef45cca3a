"""One turn of the generation process: rows of all models write, then prompts and scores are read for a share of that.

Knows no message. Invariant: all that is read, whatever the number of models, prompts and scores, takes no longer than
`READING_SHARE` of what rows wrote, but for a character that each prompt reads at least, and a step of a score, which
waits for it later. Where no row writes, each works for a turn.
"""

from collections.abc import Iterator, Sequence

from app.generation.scoring import Scoring
from models.engine import Engine, reading_seconds
from models.rows import RowOutput


def take_turn(engines: Sequence[Engine], scoring: Scoring) -> Iterator[RowOutput]:
    """What rows have to show. Take all of it: what is read comes after."""
    written = 0.0
    for engine in engines:
        outputs, seconds = engine.write()
        written += seconds
        yield from outputs
    reading = [engine for engine in engines if engine.reads]
    each = reading_seconds(written) / max(1, len(reading) + scoring.busy)
    for engine in reading:
        engine.read(each)
    scoring.advance(each)
