"""What one installation is told by its environment: variables with the prefix `CHARSMITH_`.

Knows no FastAPI: the worker and the command line read the same settings. Invariant: settings that exist are valid and
never change; an unknown or malformed variable stops the start, naming itself. docs/settings.md explains each.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import models
from app.authority import host_of_setting, origin_of_setting
from app.store.key_text import parse_key
from app.wording import words

PREFIX = "CHARSMITH_"
OF_TESTS = f"{PREFIX}TEST_"
"""Variables of this name belong to the tests, which start programs in their own environment."""
SECRETS = ("database_url", "api_key")
"""Settings whose values are never printed."""
MIB = 1024 * 1024
GIB = 1024 * MIB


class SettingsError(ValueError):
    """A variable is unknown or malformed; the message names it."""


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return name


Device = Annotated[str, AfterValidator(_known_device)]


class Settings(BaseSettings):
    """One field a variable: `data_dir` is `CHARSMITH_DATA_DIR`."""

    # An empty variable counts as unset: docker compose passes one for `${NAME:-}`.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Path = Field(Path("charsmith-data"), description="Folder of the SQLite file and of temporary files.")
    database_url: str | None = Field(
        None,
        description="Address of the database, `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE` for a server. Unset: "
        "SQLite, `charsmith.db` in the data folder.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    allow_anonymous: bool = Field(
        False, description="Listen on an address that is not loopback although there is no API key to ask for."
    )
    api_key: SecretStr | None = Field(None, description="API key that the commands show a service that asks for one.")
    device: Device = Field("auto", description="Where to train: `auto` takes CUDA if it is there.")
    executor: Literal["process", "ray"] = Field(
        "process",
        description="Where the worker trains: `process` on its own machine, one job at a time; `ray` on the nodes of a "
        "Ray cluster, as many at once as have room (docs/scaling.md).",
    )
    generation_device: Device = Field("cpu", description="Where to generate; the default leaves the GPU to training.")
    generation_precision: Literal["auto", "float32"] = Field(
        "auto",
        description="In which type generation multiplies on the CPU: `auto` is bfloat16 where the processor multiplies "
        "it; `float32` is slower, and writes what other programs write with the downloaded file.",
    )
    lease_seconds: float = Field(
        13.0, ge=1, le=86_400, description="A running job whose heartbeat stood still for so long is taken over."
    )
    stall_seconds: float = Field(
        60.0, ge=10, le=86_400, description="A training process that did not move for so long is ended and tried again."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names that the service is called by, beside addresses and `localhost`, separated by commas.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins of web pages that may call the service, separated by commas."
    )
    max_corpus_bytes: int = Field(GIB, ge=1, le=1024 * GIB, description="Largest text that can be uploaded.")
    max_model_bytes: int = Field(2 * GIB, ge=1, le=1024 * GIB, description="Largest model file that can be uploaded.")
    max_prompt_characters: int = Field(100_000, ge=0, le=10_000_000, description="Longest prompt of a generation.")
    max_score_characters: int = Field(10_000_000, ge=1, le=100_000_000, description="Longest text that can be scored.")
    max_streams: int = Field(
        64, ge=1, le=100_000, description="Generations and scores at the same time; more are told to wait."
    )
    reader_seconds: float = Field(
        30.0, ge=1, le=86_400, description="A client that takes nothing of its text or score for so long is given up."
    )
    max_queued_jobs: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="Jobs that may wait; more are told to come later, but for the first of an API key.",
    )
    torch_threads: int | None = Field(
        None,
        ge=1,
        le=1_024,
        description="Threads of one training process. Unset: all cores that it may use, on a Ray cluster those of its "
        "smallest node. A resumed one keeps its own.",
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least severe messages that are logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`json`: an object a line; `text`; `auto` is `text` on a terminal and `json` elsewhere."
    )

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and parse_key(key.get_secret_value()) is None:
            raise ValueError("this is no API key as `charsmith keys create` prints it, csk_..._...")
        return key

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(origin_of_setting, origins))

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(host_of_setting, hosts))

    @property
    def resolved_database_url(self) -> str:
        """The address of the database, the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'charsmith.db'}"

    @property
    def temporary_dir(self) -> Path:
        """Upload spools, encoded corpora, perhaps compiled functions; in the data folder because a container with a
        read-only root has memory for its /tmp."""
        return self.data_dir / "tmp"

    @property
    def compiled_dir(self) -> Path:
        """Where compiled functions are kept: numba's own variable, beside their sources, or in the data folder where
        those are read-only."""
        if told := os.environ.get("NUMBA_CACHE_DIR"):
            return Path(told)
        beside = Path(models.__file__).parent / "__pycache__"
        writable = os.access(beside if beside.exists() else beside.parent, os.W_OK)
        return beside if writable else self.temporary_dir / "compiled"


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with `overrides` (command line flags) before it. Raises SettingsError."""
    _refuse_unknown(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_named(problem) for problem in error.errors())) from None


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {variable_name(field) for field in Settings.model_fields}
    ours = (name for name in environment if name.upper().startswith(PREFIX) and not name.startswith(OF_TESTS))
    unknown = sorted(name for name in ours if name.upper() not in known)
    if unknown:
        raise SettingsError(f"{unknown[0]}: no such setting; known are {', '.join(sorted(known))}")


def variable_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def _named(problem: Mapping[str, Any]) -> str:
    """The problem with the variable's name before it. Its value is left out where it may hold a secret."""
    field = str(problem["loc"][0])
    given = "" if field in SECRETS else f", not {problem['input']!r}"
    return f"{variable_name(field)}: {words(problem)}{given}"
