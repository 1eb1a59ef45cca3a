"""Postponed jobs: left alone for longer each time, never for ever."""

from worker.postponed import FIRST_SECONDS, LONGEST_SECONDS, Postponed


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pause_of(postponed: Postponed, clock: Clock) -> float:
    """How long the job is left alone, as far as whole seconds tell."""
    started = clock.now
    while postponed.not_now():
        clock.now += 1
    return clock.now - started


def test_a_job_is_left_alone_for_twice_as_long_each_time_up_to_some_minutes() -> None:
    clock = Clock()
    postponed = Postponed(clock)
    pauses = []
    for attempt in range(10):
        postponed.add("job", attempt)
        pauses.append(pause_of(postponed, clock))
    assert pauses[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert pauses[-1] == LONGEST_SECONDS


def test_a_job_that_had_its_room_begins_with_a_short_pause_again() -> None:
    clock = Clock()
    postponed = Postponed(clock)
    for attempt in range(5):
        postponed.add("job", attempt)
    postponed.forget("job")
    assert postponed.not_now() == frozenset()
    postponed.add("job", 6)
    assert pause_of(postponed, clock) == FIRST_SECONDS


def test_jobs_that_never_came_back_are_forgotten() -> None:
    clock = Clock()
    postponed = Postponed(clock)
    postponed.add("gone", 1)
    clock.now += FIRST_SECONDS + LONGEST_SECONDS
    postponed.add("job", 6)
    assert list(postponed._pauses) == ["job"]


def test_an_attempt_counts_once_however_often_it_is_told_of() -> None:
    """As while the database is locked and the job cannot be released."""
    clock = Clock()
    postponed = Postponed(clock)
    for _ in range(9):
        postponed.add("job", 1)
    assert pause_of(postponed, clock) == FIRST_SECONDS
