"""An idle worker's wait: over as soon as a job may have been queued.

Knows no job. Invariant: it returns at a stop, and after the time that was named, whatever becomes of the listening: who
looks by himself then has lost nothing but a moment.
"""

import logging
import time
from contextlib import ExitStack

from app.processes import StopRequest
from app.store.database import Database
from app.store.errors import StoreError
from app.store.notices import Listener, listening

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
"""Between two looks at SQLite's count of commits, and at whether to stop. Some microseconds each."""


class Rest:
    """For one thread. It listens from the first `wait` to `end`: news that nobody reads would gather at the server."""

    def __init__(self, database: Database, stop: StopRequest) -> None:
        self._database = database
        self._stop = stop
        self._listener: Listener | None = None
        self._open = ExitStack()

    def wait(self, seconds: float) -> None:
        """Return when there is news of any job, when a stop is asked for, or after so long."""
        until = time.monotonic() + seconds
        try:
            if self._listener is None:
                self._listener = self._open.enter_context(listening(self._database))
            while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
                told = self._listener.wait(min(left, LOOK_SECONDS))
                if told is None or told:
                    return
        except Exception as error:  # whatever it is, a worker outlives it, and looks by itself meanwhile
            log.log(
                logging.DEBUG if isinstance(error, StoreError) else logging.ERROR,
                "nobody tells of new jobs",
                exc_info=True,
            )
            self.end()
            self._stop.wait(max(0.0, until - time.monotonic()))

    def end(self) -> None:
        """The worker has something to do."""
        self._listener = None
        self._open.close()
