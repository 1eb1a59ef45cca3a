"""How a request comes by its stream: the best checkpoint that can be read is found, and a row asked for.

Knows the store and generation, not what the row is to do. Invariant: a stream that is not given out is evicted.
"""

import secrets
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool

from app.errors import invalid
from app.generation.streams import Generation, GenerationRefused, Holder, Samples
from app.settings import Settings
from app.store.database import Database
from app.store.trained_models import Checkpoint, Model, find_checkpoint, quarantine

PASSED_OVER = ("checkpoint_corrupted", "checkpoint_gone")
"""Why another checkpoint is tried: the best is damaged, or was replaced by a newer one since it was found."""
TRIES = 5
SEEDS = 2**53
"""A drawn seed is below this: JavaScript holds it exactly."""


def drawn_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbelow(SEEDS)


def check_number(
    number: int, settings: Settings, holder: Holder | None, what: str = "must be", field: str = "n"
) -> None:
    """Return if so many streams of one request can be open at once, ever. Raises Problem, for that field of it."""
    limit, own = settings.max_streams, holder and holder.max_streams
    if number > limit:
        raise invalid(field, f"{what} at most {limit}, as many streams as may be open at once")
    if own is not None and number > own:
        raise invalid(field, f"{what} at most {own}, as many streams as this API key may have open at once")


async def admitted(
    generation: Generation,
    database: Database,
    key: str,
    admit: Callable[[Samples, Model, Checkpoint], Awaitable[None]],
    number: int = 1,
    holder: Holder | None = None,
) -> tuple[Model, Checkpoint, Samples]:
    """So many streams of the best checkpoint that can be read of what `key` names; `admit` asks for their rows. They
    count as the `holder`'s.

    Raises NotFound, Corrupted, GenerationRefused, TooManyStreams, GenerationUnavailable, and what `admit` raises.
    """
    for tries_left in reversed(range(TRIES)):
        samples = generation.hold_places(number, holder)
        try:
            model, checkpoint = await run_in_threadpool(find_checkpoint, database, key)
            await admit(samples, model, checkpoint)
        except GenerationRefused as refused:
            is_damaged = refused.code == "checkpoint_corrupted"
            found_again = is_damaged and not await run_in_threadpool(quarantine, database, checkpoint)
            if refused.code not in PASSED_OVER or found_again or not tries_left:
                raise
        except BaseException:
            samples.evict()
            raise
        else:
            return model, checkpoint, samples
    raise AssertionError("the last try returns or raises")
