"""Training as a generator of events: says what became true, step by step.

Knows no database, no queue and no clock policy. Invariants: what happens at a step depends on the configuration, the
corpus, the seed and the recorded plan; a training that goes on from a resume point is, on the same kind of machine and
with as many threads, the uninterrupted one to the bit, and says where it is not. Evaluating, sampling and saving change
nothing that training computes with.
"""

import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch

from models.checkpoint import CheckpointInfo, decode_checkpoint, encode_checkpoint
from models.config import ModelConfig, TrainingConfig
from models.sampling import NotFinite
from models.transplant import transplant
from worker.batches import Corpus, CorpusTooShort, Lanes, split
from worker.course import Course
from worker.evaluation import Validation, sample_text
from worker.events import Evaluated, Event, Finished, FinishReason, Progress, Sampled, Saved, Setback, Started, Ticked
from worker.learner import Diverged, Learner, Update
from worker.machine_kind import machine_kind
from worker.memory import peak_memory_bytes
from worker.pace import Pace
from worker.recipe import Plan, Recipe, guess_evaluation_steps, most_validation_characters
from worker.resume_point import InvalidResumePoint, ResumePoint

__all__ = ["CorpusTooShort", "Diverged", "InvalidResumePoint", "train"]

SAMPLES = 8
"""So often in a run a sample is shown beside those at evaluations, where `evaluate_every` is left to the plan."""
MOST_SETBACKS = 3
"""Times in a training that it goes back and tries with half the learning rate: an eighth of it in the end."""


def train(
    model: ModelConfig,
    training: TrainingConfig,
    corpus: Corpus,
    *,
    device: str = "cpu",
    resume: bytes | None = None,
    from_checkpoint: bytes | None = None,
    pause_requested: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Train, telling what happens; the last event is Finished. Closing the generator cancels.

    `resume` is the `resume_point` of a Saved event of the same job. `pause_requested` is asked at every step and within
    evaluations; once true, a Saved without checkpoint and Finished("paused") follow. `from_checkpoint` is a checkpoint
    file: the network, of the same shape, begins with its weights and is evaluated before the first step. `corpus` then
    has all characters of the checkpoint in its vocabulary. Uses torch's global random generator. Raises CorpusTooShort,
    Diverged (after three setbacks), ValueError for another network's checkpoint, and InvalidResumePoint for another
    training's `resume`.
    """
    torch.set_flush_denormal(True)  # a state that fades into denormal numbers makes products many times slower
    yield Ticked("loading", 0)
    run = _Run(model, training, corpus, device, pause_requested, clock)
    if from_checkpoint is not None:
        run.begin_with(from_checkpoint)
    if resume is not None:
        run.restore(ResumePoint.decode(resume))
    yield from run.events()


class _Run:
    """One training under way."""

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        corpus: Corpus,
        device: str,
        pause_requested: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        if len(corpus.ids) < training.minimum_characters:
            raise CorpusTooShort(len(corpus.ids), training.minimum_characters, model.normalization)
        self._model, self._training, self._corpus, self._device = model, training, corpus, device
        self._pause_requested = pause_requested
        train_ids, validation_ids = split(corpus, training)
        self._train_characters = len(train_ids)
        self._lanes = Lanes(train_ids, training.batch_size, training.sequence_length)
        most = most_validation_characters(training, self._lanes.windows)
        self._validation = Validation(corpus.ids, len(train_ids), most) if len(validation_ids) else None
        self._learner = Learner(model, training, len(corpus.vocabulary), self._lanes, device)
        characters_a_lane = self._validation.characters / self._validation.lanes if self._validation else 0.0
        evaluation_steps = guess_evaluation_steps(training, self._lanes.lanes, characters_a_lane)
        self._recipe = Recipe(training, self._lanes.windows, evaluation_steps)
        self._plan = self._recipe.first_plan()
        self._course = Course()
        self._resume_point = b""
        self._characters = 0
        self._pace = Pace(clock, evaluation_steps)
        self._from_checkpoint: str | None = None  # its SHA-256
        self._machines = [machine_kind(device)]

    def begin_with(self, checkpoint: bytes) -> None:
        """Take the weights of a checkpoint file for the initial ones. Raises ValueError if it is of another network."""
        origin, info = decode_checkpoint(checkpoint)
        transplant(origin, info.vocabulary, self._learner.network, self._corpus.vocabulary)
        self._from_checkpoint = hashlib.sha256(checkpoint).hexdigest()

    def events(self) -> Iterator[Event]:
        """All from here to Finished."""
        yield self._started()
        self._resume_point = self._encoded()
        reason: FinishReason | None = None
        while reason is None:
            try:
                reason = yield from self._go_on()
            except Diverged as diverged:
                yield from self._go_back(diverged)
        yield Finished(self._course.step, reason, self._course.best_step, self._course.best_val_loss)

    def _go_on(self) -> Generator[Event, None, FinishReason]:
        """Train until there is a reason to end. Raises Diverged."""
        while True:
            if self._pause_requested():
                self._learner.check_finite(self._course.step)
                yield self._saved(None, best=False, checkpoint=None)
                return "paused"
            if self._evaluated_due():
                yield from self._evaluate()
            elif self._course.step >= self._plan.steps:
                return "budget"
            elif self._course.evaluations_since_best >= (self._training.patience or math.inf):
                return "patience"
            else:
                yield from self._advance()

    def _go_back(self, diverged: Diverged) -> Iterator[Event]:
        """To the last resume point, or the start, with half the learning rate; the clock of the budget goes on.

        Raises Diverged when that was tried often enough.
        """
        setbacks = self._course.setbacks + 1
        if setbacks > MOST_SETBACKS:
            raise Diverged(diverged.what, diverged.step, self._advice()) from diverged
        self._put_back(ResumePoint.decode(self._resume_point))
        self._course.setbacks = setbacks
        yield Setback(diverged.step, self._course.step, setbacks, self._peak_rate, diverged.what)
        yield self._saved(None, best=False, checkpoint=None)

    @property
    def _peak_rate(self) -> float:
        return self._training.learning_rate * 0.5**self._course.setbacks

    def _advice(self) -> str:
        return (
            f", though training went back {self._course.setbacks} times, each time to half the learning rate: train "
            f"anew with a learning_rate below {self._peak_rate:g}, or a lower gradient_clip; checkpoints stored before "
            "are sound"
        )

    def _evaluated_due(self) -> bool:
        if self._from_checkpoint and self._course.step == 0:  # how good it is already: to be beaten
            return self._course.best_step is None
        return self._course.evaluated_step != self._course.step == self._plan.evaluate_at

    def _advance(self) -> Iterator[Event]:
        """One step, and what is due after it."""
        step = self._course.step
        learning_rate = self._plan.learning_rate(step, self._peak_rate)
        update = self._learner.update(step, learning_rate)
        self._course.count_step(update.loss)
        self._characters += update.characters
        self._pace.count_step()
        yield Ticked("training", self._course.step)
        if self._course.step == self._plan.report_at:
            yield self._report(update, learning_rate)
            yield from self._sample_between()

    def _report(self, update: Update, learning_rate: float) -> Progress:
        course = self._course
        lap_seconds = self._pace.lap()
        self._replan()
        train_loss = course.report_loss()
        characters, self._characters = self._characters, 0
        return Progress(
            step=course.step,
            steps=self._plan.steps,
            epoch=course.step / self._lanes.windows,
            fraction=self._plan.fraction(course.step),
            train_loss=train_loss,
            learning_rate=learning_rate,
            gradient_norm=update.gradient_norm,
            characters_per_second=characters / lap_seconds,
            seconds=self._pace.seconds,
            eta_seconds=self._recipe.eta_seconds(self._plan, course.step, course.evaluated_step, self._pace.costs()),
            memory_bytes=peak_memory_bytes(self._device),
        )

    def _replan(self) -> None:
        course = self._course
        self._plan = self._recipe.next_plan(
            self._plan, course.step, evaluated=course.evaluated_step, costs=self._pace.costs()
        )

    def _sample_between(self) -> Iterator[Event]:
        due = int(SAMPLES * self._plan.fraction(self._course.step))
        if self._training.evaluate_every is None and due > self._course.samples and not self._evaluated_due():
            yield self._sampled()
        self._course.samples = due

    def _evaluate(self) -> Iterator[Event]:
        """Evaluate, sample and save. A pause breaks it off, to be done again: it leaves no trace before its end."""
        began = self._pace.now()
        self._learner.check_finite(self._course.step)
        val_loss = None
        if self._validation is not None:
            total, characters = 0.0, 0
            for window_total, window_characters in self._validation.losses(self._learner.result, self._device):
                total, characters = total + window_total, characters + window_characters
                yield Ticked("evaluating", self._course.step)
                if self._pause_requested():
                    return
            val_loss = total / characters
            if not math.isfinite(val_loss):
                raise Diverged("validation loss", self._course.step)
        sampled = self._sampled()  # which finds out whether the network answers: before anything is told
        best = self._course.judge(val_loss)
        if val_loss is not None:
            yield Evaluated(self._course.step, val_loss, best)
        yield sampled
        self._replan()
        yield self._saved(val_loss, best=best, checkpoint=self._checkpoint(val_loss))
        self._pace.count_evaluation(began)

    def _checkpoint(self, val_loss: float | None) -> bytes:
        vocabulary, training = self._corpus.vocabulary, self._training.as_dict()
        info = CheckpointInfo(
            self._model, vocabulary, self._course.step, self._course.recent_loss(), val_loss, training
        )
        return encode_checkpoint(self._learner.result, info)

    def _started(self) -> Started:
        return Started(
            step=self._course.step,
            steps=self._plan.steps,
            parameters=self._model.parameter_count(len(self._corpus.vocabulary)),
            vocabulary_size=len(self._corpus.vocabulary),
            train_characters=self._train_characters,
            validation_characters=len(self._corpus.ids) - self._train_characters,
            device=self._device,
            precision=self._learner.precision,
            setbacks=self._course.setbacks,
            threads=torch.get_num_threads(),
            machines=tuple(self._machines),
        )

    def _sampled(self) -> Sampled:
        try:
            text = sample_text(self._learner.result, self._corpus.vocabulary, self._device)
        except NotFinite:
            raise Diverged("network's answer", self._course.step) from None
        return Sampled(self._course.step, text)

    def _saved(self, val_loss: float | None, *, best: bool, checkpoint: bytes | None) -> Saved:
        self._resume_point = self._encoded()
        return Saved(self._course.step, self._course.recent_loss(), val_loss, best, checkpoint, self._resume_point)

    def _encoded(self) -> bytes:
        return ResumePoint(self._learner.tensors(), self._values()).encode()

    def _identity(self) -> dict[str, Any]:
        """What a resume point belongs to."""
        return {
            "model": self._model.as_dict(),
            "training": self._training.as_dict(),
            "vocabulary": self._corpus.vocabulary.characters,
            "corpus_sha256": self._corpus.sha256,
            "train_characters": self._train_characters,
            "from_checkpoint": self._from_checkpoint,
        }

    def _values(self) -> dict[str, Any]:
        pace = (self._pace.seconds, self._pace.step_seconds, self._pace.evaluation_seconds)
        return {
            "identity": self._identity(),
            "course": self._course.as_dict(),
            "plan": self._plan.as_dict(),
            "pace": pace,
            "threads": torch.get_num_threads(),
            "machines": self._machines,
        }

    def restore(self, point: ResumePoint) -> None:
        """Go on from `point`. Raises InvalidResumePoint, naming what differs, when it is another training's."""
        try:
            point.check_identity(self._identity())
            self._put_back(point)
            self._pace.restore(*point.values["pace"])
            before = list(point.values.get("machines", []))  # older resume points do not say
            self._machines = before if before[-1:] == self._machines else before + self._machines
            # With another number, as on a machine that may use fewer cores now, sums would be rounded otherwise.
            torch.set_num_threads(point.values.get("threads", torch.get_num_threads()))
        except (KeyError, TypeError, RuntimeError) as error:
            raise InvalidResumePoint(f"the resume point is incomplete: {error}") from error

    def _put_back(self, point: ResumePoint) -> None:
        self._course = Course.from_dict(point.values["course"])
        self._plan = Plan.from_dict(point.values["plan"])
        self._learner.load(point.tensors)
