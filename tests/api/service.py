"""A real service on a real port, with a real store in a temporary folder and a scripted generation process."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from app.generation.streams import GenerationUnavailable, Holder, TooManyStreams
from app.main import create_app
from app.openai.dialect import is_openai
from app.server import Server, make_server
from app.settings import Settings
from app.store import claims, corpora, jobs, recording
from app.store.claims import Claim
from app.store.database import Database
from app.store.job_rows import Job
from app.store.opening import open_database
from models.config import ModelConfig, TrainingConfig

TEXT = b"to be, or not to be, that is the question\n" * 100
DEADLINE_SECONDS = 20.0


@dataclass
class ScriptedGeneration:
    """Says of every model file what the test wants."""

    alive: bool = True
    refusal: Exception | None = None
    inspected: list[str] = field(default_factory=list)
    ended: str = ""
    crowded: TooManyStreams | None = None
    open_streams: int = 0
    waiting_streams: int = 0
    counted: dict[str, int] | None = None
    """None: it does not answer."""

    def end_streams(self, reason: str) -> None:
        self.ended = reason

    def full(self, number: int = 1, holder: Holder | None = None) -> TooManyStreams | None:
        return self.crowded

    async def counts(self) -> dict[str, int]:
        if self.counted is None:
            raise GenerationUnavailable("scripted")
        return self.counted

    async def inspect(self, blob_id: str) -> dict[str, Any]:
        self.inspected.append(blob_id)
        if self.refusal is not None:
            raise self.refusal
        return {}


@dataclass
class Service:
    """A running service, seen from outside (`http`) and from within."""

    http: httpx.Client
    database: Database
    generation: ScriptedGeneration
    settings: Settings
    server: Server

    @property
    def app(self) -> FastAPI:
        app = self.server.config.app
        assert isinstance(app, FastAPI)
        return app

    @property
    def address(self) -> tuple[str, int]:
        url = self.http.base_url
        return url.host, url.port or 80

    def wait_until_taken_up(self, connection: socket.socket) -> None:
        """Until the request sent on `connection` has been read: what is still in the kernel, a stop resets."""
        mine, deadline = connection.getsockname(), time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for protocol in list(self.server.server_state.connections):
                if protocol.transport.get_extra_info("peername") == mine and protocol.cycle is not None:
                    return
            time.sleep(0.002)
        raise AssertionError("the request was not taken up")

    def upload(self, text: bytes = TEXT, name: str | None = None, file_name: str = "hamlet.txt") -> httpx.Response:
        return self.http.post("/corpora", files={"file": (file_name, text)}, data={"name": name} if name else {})

    def enqueue(self, name: str = "hamlet", text: bytes = TEXT) -> Job:
        """A job, put into the queue without the service."""
        corpus = corpora.add_corpus(self.database, [text], "hamlet").corpus
        model, training = ModelConfig(hidden_size=4, embedding_size=2).as_dict(), TrainingConfig(steps=10).as_dict()
        return jobs.enqueue(self.database, name=name, corpus_id=corpus.id, model=model, training=training)[0]

    def evaluate_and_save(self, claim: Claim, step: int, val_loss: float) -> None:
        """As a worker does: a new best loss, then its checkpoint."""
        recording.record_evaluation(self.database, claim, step, val_loss, True)
        recording.record_saved(
            self.database,
            claim,
            step=step,
            train_loss=2.0,
            val_loss=val_loss,
            checkpoint=b"weights",
            info={"vocabulary_size": 4, "parameters": 9},
            resume_point=b"resume",
        )

    def claim(self) -> Claim:
        """The oldest queued job, claimed as a worker would."""
        claim = claims.claim_next(self.database, "worker-1")
        assert claim is not None
        return claim


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """A service with these settings, until the block ends."""
    database, generation = open_database(settings.resolved_database_url), ScriptedGeneration()
    server = make_server(settings, create_app(settings, database=database, generation=generation))
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.start()
        try:
            with httpx.Client(base_url=url, timeout=DEADLINE_SECONDS, trust_env=False) as http:
                wait_until_alive(http)
                yield Service(http, database, generation, settings, server)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
            database.close()


def wait_until_alive(http: httpx.Client) -> None:
    # The socket accepts only once the service listens; until then a connection is refused.
    for _ in range(2000):
        with contextlib.suppress(httpx.ConnectError):
            http.get("/healthz")
            return
    raise AssertionError("the service did not start")


def assert_problem(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, which has the form that all have; below `/v1` OpenAI's, here in our words."""
    assert answer.status_code == status, answer.text
    if is_openai(answer.url.path):
        return _problem_of_openai(answer, field)
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == status
    if field is not None:
        assert field in [error["field"] for error in problem["errors"]], problem
    return problem


def _problem_of_openai(answer: httpx.Response, field: str | None) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document.keys() == {"error"}
    error: dict[str, Any] = document["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert field is None or error["param"] == field, error
    return {"status": answer.status_code, "detail": error["message"], "code": error["code"]}


def walk(http: httpx.Client, path: str, limit: int, **query: str) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    items: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = http.get(path, params={"limit": limit, **query, **after}).json()
        assert len(page["data"]) <= limit
        items += page["data"]
        if page["next"] is None:
            return items
        after = {"after": page["next"]}
