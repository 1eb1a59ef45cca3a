"""Trainings as OpenAI's dialect asks for them, and the same in our own words.

Knows both kinds of requests, no store. Invariant: whatever is refused is named as the client wrote it; a setting that
is said in two places is refused, not chosen from.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.errors import Problem, invalid, invalid_fields, problem_of
from app.job_schemas import JobRequest, Metadata, ModelSettings, TrainingSettings
from app.openai.not_done import NotDone
from app.presets import Preset
from app.schemas import Request, Text
from app.store.errors import NotFound
from app.store.jobs import Order
from models.config import TRAINING_RANGES, TrainingConfig

PRESETS: tuple[str, ...] = get_args(Preset)
OURS = {"corpus": "training_file", "from_checkpoint": "model", "preset": "model", "name": "suffix", "model": "network"}
"""Fields of a JobRequest that have another name here."""
OF_KIND = {"corpus": "training_file", "model": "model", "checkpoint": "model"}
"""The field that named what was not found."""


def _unless_auto(value: object) -> object:
    return None if value == "auto" else value


def _or_auto(kind: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": kind}, {"const": "auto"}, {"type": "null"}]})


Number = Annotated[float | None, BeforeValidator(_unless_auto), _or_auto("number")]
Whole = Annotated[int | None, BeforeValidator(_unless_auto), _or_auto("integer")]


def same(name: str) -> Any:
    """A field as a JobRequest has it."""
    return copy(JobRequest.model_fields[name])


class Hyperparameters(Request):
    """What OpenAI's API calls so; `auto` is the same as leaving out."""

    n_epochs: Number = Field(default=None, description="`training.epochs`.")
    batch_size: Whole = Field(default=None, description="`training.batch_size`.")
    learning_rate_multiplier: Number = Field(
        default=None, description="Of the learning rate that the network would get: by its width."
    )


class Supervised(Request):
    """Settings of the one method."""

    hyperparameters: Hyperparameters | None = None


class Method(Request):
    """How to train."""

    type: Literal["supervised"]
    supervised: Supervised | None = None


class Said(NamedTuple):
    """A setting of the training, by OpenAI's name and by ours."""

    field: str
    setting: str
    value: Any


class FineTuningRequest(Request):
    """What to train on, and from what; everything else has a default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "auto", "training_file": "shakespeare", "training": {"minutes": 0.2}}],
        },
    )

    model: Text = Field(
        min_length=1,
        max_length=200,
        description=f"A size of network, to train from nothing ({', '.join(PRESETS)}), or a model to go on from, by "
        "id, name or `name@step`. A model that has the name of a size is meant by its id alone.",
        examples=["auto"],
    )
    training_file: Text = same("corpus")
    suffix: Text | None = same("name")
    seed: int | None = Field(default=None, description="`training.seed`.")
    hyperparameters: Hyperparameters | None = Field(default=None, description="As in `method.supervised`.")
    method: Method | None = None
    network: ModelSettings | None = Field(default=None, description="As `model` of `POST /jobs`.")
    training: TrainingSettings | None = Field(default=None, description="As `training` of `POST /jobs`.")
    validation_file: Annotated[None, NotDone("the end of the text is kept, training.validation_fraction of it")] = None
    integrations: Annotated[None, NotDone("nobody else is told of a job; its events are here", "array")] = None
    metadata: Metadata | None = same("metadata")

    def job_request(self) -> JobRequest:
        """The same in our own words, but for the multiplier of the learning rate. Raises Problem."""
        is_size = self.model in PRESETS
        return JobRequest(
            corpus=self.training_file,
            name=self.suffix,
            preset=cast(Preset, self.model) if is_size else "auto",
            from_checkpoint=None if is_size else self.model,
            model=self.network,
            training=self._training(),
            metadata=self.metadata,
        )

    def amended(self, order: Order) -> Order:
        """The order with the learning rate that was asked for. Raises InvalidConfig."""
        multiplier = self._hyperparameters()[1].learning_rate_multiplier
        if multiplier is None:
            return order
        rate = order.training["learning_rate"] * multiplier
        allowed = TRAINING_RANGES["learning_rate"]
        if not allowed.low <= rate <= allowed.high:
            ratios = " to ".join(
                f"{bound / order.training['learning_rate']:.3g}" for bound in (allowed.low, allowed.high)
            )
            field = f"{self._hyperparameters()[0]}.learning_rate_multiplier"
            raise invalid(field, f"must be a number from {ratios}, not {multiplier:g}", code="invalid_setting")
        training = TrainingConfig.from_dict(order.training | {"learning_rate": rate})
        return replace(order, training=training.as_dict())

    def refused(self, error: Exception) -> Problem:
        """An error of the job's as a problem with the names that this request has."""
        problem = error if isinstance(error, Problem) else problem_of(error)
        if isinstance(error, NotFound) and error.kind in OF_KIND:
            problem.errors = [{"field": OF_KIND[error.kind], "message": str(error)}]
        elif problem.errors is not None:
            found = [(self._name_here(each["field"]), each["message"]) for each in problem.errors]
            return invalid_fields(found, code=problem.code)
        return problem

    def _training(self) -> TrainingSettings:
        given = (self.training or TrainingSettings()).given()
        for field, setting, value in self._said():
            if setting in given:
                raise invalid(field, f"training.{setting} says the same: leave one of them out")
            if field.rpartition(".")[2] != "learning_rate_multiplier":
                given[setting] = value
        return TrainingSettings(**given)

    def _said(self) -> Iterator[Said]:
        """The settings that stand outside of `training`. Raises Problem if there are two sections of them."""
        section, of = self._hyperparameters()
        names = ("n_epochs", "epochs"), ("batch_size", "batch_size"), ("learning_rate_multiplier", "learning_rate")
        said = [Said(f"{section}.{name}", setting, getattr(of, name)) for name, setting in names]
        return (each for each in (Said("seed", "seed", self.seed), *said) if each.value is not None)

    def _hyperparameters(self) -> tuple[str, Hyperparameters]:
        """Those that are given, and where they stand."""
        of_method = self.method.supervised.hyperparameters if self.method and self.method.supervised else None
        if of_method is None:
            return "hyperparameters", self.hyperparameters or Hyperparameters()
        if self.hyperparameters is not None:
            raise invalid("hyperparameters", "method.supervised.hyperparameters says the same: leave one of them out")
        return "method.supervised.hyperparameters", of_method

    def _name_here(self, field: str) -> str:
        """What this request calls a field of a job's."""
        section, dot, setting = field.partition(".")
        for said in self._said():
            if field in (f"training.{said.setting}", said.setting):
                return said.field
        return f"{OURS.get(section, section)}{dot}{setting}"
