"""Wakes those of this process who follow a job when it has news.

Knows no HTTP. However many follow, and however often they come and go, one thread listens to a database, while somebody
follows and a moment longer. Invariant: a follower is woken after every change of its job; it may be woken in vain.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator

from app.store.database import Database
from app.store.errors import StoreError
from app.store.notices import Told, listening

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.5
"""Between two looks of the thread at whether it is to end."""
LINGER_SECONDS = 2.0
"""So long it goes on without a follower: the next one needs no other."""
RETRY_SECONDS = 1.0
"""Without a listener followers look so often."""


class JobNews:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._hubs: dict[Database, _Hub] = {}

    @contextlib.contextmanager
    def of(self, database: Database, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job may have news."""
        if (hub := self._hubs.get(database)) is None:
            hub = self._hubs[database] = _Hub(database, asyncio.get_running_loop())
        changed = asyncio.Event()
        hub.followers.setdefault(job_id, set()).add(changed)
        try:
            yield changed
        finally:
            of_job = hub.followers[job_id]
            of_job.discard(changed)
            if not of_job:
                del hub.followers[job_id]
            if not hub.followers:
                hub.loop.call_later(LINGER_SECONDS, self._end_unused, database, hub)

    def _end_unused(self, database: Database, hub: "_Hub") -> None:
        if not hub.followers and self._hubs.get(database) is hub:
            hub.stopping.set()
            del self._hubs[database]

    def close(self) -> None:
        """Nobody is told anything more, and nobody listens."""
        for hub in self._hubs.values():
            hub.stopping.set()
        self._hubs.clear()

    def wake_all(self) -> None:
        """Everybody looks."""
        for hub in self._hubs.values():
            hub.wake(None)


class _Hub:
    """The followers of one database, and the thread that listens for them."""

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self.followers: dict[str, set[asyncio.Event]] = {}
        self.stopping = threading.Event()
        self._database = database
        self.loop = loop
        threading.Thread(target=self._listen, name="job-news", daemon=True).start()

    def wake(self, told: Told) -> None:
        """Those of the jobs, or all; in the event loop."""
        for job_id in list(self.followers) if told is None else told:
            for changed in self.followers.get(job_id, ()):
                changed.set()

    def _listen(self) -> None:
        while not self.stopping.is_set():
            try:
                self._listen_once()
            except Exception as error:  # whatever it is, followers look by themselves meanwhile
                is_known = isinstance(error, StoreError)
                log.warning("no news of jobs can be listened for, tried again: %s", error, exc_info=not is_known)
                self._tell(None)
                self.stopping.wait(RETRY_SECONDS)

    def _listen_once(self) -> None:
        with listening(self._database) as listener:
            while not self.stopping.is_set():
                told = listener.wait(WAIT_SECONDS)
                if told is None or told:
                    self._tell(told)

    def _tell(self, told: Told) -> None:
        try:
            self.loop.call_soon_threadsafe(self.wake, told)
        except RuntimeError:  # the loop is closed: nobody follows any more
            self.stopping.set()
