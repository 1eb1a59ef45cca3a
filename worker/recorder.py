"""From the events of a training to the rows that say so.

Knows the store, no process and no SQL. Invariant: each fact is one transaction of the store's, under the claim's fence,
so what a worker that has lost its lease records changes nothing.
"""

import logging
from dataclasses import asdict

from app.store import claims
from app.store.claims import Claim
from app.store.database import Database
from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved, Setback, Started, Ticked

log = logging.getLogger(__name__)


class Recorder:
    """Writes one attempt's events to the store. Raises LeaseLost when the job is another's."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim
        self._started: Started | None = None

    @property
    def has_started(self) -> bool:
        """Whether the attempt has had all that it needs to begin."""
        return self._started is not None

    def record(self, event: Event) -> None:
        """Store what the event says; ticks and the end are the runner's business."""
        match event:
            case Started():
                self._started = event
                if len(event.machines) > 1:
                    log.warning(
                        "job %s: on its %d. kind of machine: %s",
                        self._claim.job.id,
                        len(event.machines),
                        event.machines[-1],
                    )
                claims.drop_after(self._database, self._claim, event.step)
                claims.record_started(self._database, self._claim, asdict(event))
            case Progress():
                claims.record_progress(self._database, self._claim, asdict(event))
            case Evaluated():
                claims.record_evaluation(self._database, self._claim, event.step, event.val_loss, event.best)
            case Sampled():
                claims.record_sample(self._database, self._claim, event.step, event.text)
            case Saved():
                self._record_saved(event)
            case Setback():
                claims.record_setback(self._database, self._claim, asdict(event))
            case Ticked() | Finished():
                pass

    def _record_saved(self, event: Saved) -> None:
        assert self._started is not None, "Saved comes after Started"
        claims.record_saved(
            self._database,
            self._claim,
            step=event.step,
            train_loss=event.train_loss,
            val_loss=event.val_loss,
            checkpoint=event.checkpoint,
            info={"vocabulary_size": self._started.vocabulary_size, "parameters": self._started.parameters},
            resume_point=event.resume_point,
        )
