"""Sends every bad input to a running service and compares: the answer, the OpenAPI document, what is stored.

Invariant: whatever it stored is deleted again, and nothing else is touched.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.api.generating import tiny_checkpoint
from tests.bad_inputs import generation, jobs, protocol, scores, texts
from tests.bad_inputs.case import NAME, Case
from tests.bad_inputs.wire import Answer, exchange
from tests.system.harness import FINISHED, wait_for

LINGER_BYTES = 48 * 1024 * 1024
"""What a client may have sent beyond a limit when it sees the answer: socket buffers of both sides, and what the
service reads and drops so that the answer is not lost."""


SEVERAL_CODES = {403, 404, 422, 429, 500, 503}
"""Statuses with more than one code: the OpenAPI document shows one of them."""


@dataclass(frozen=True, slots=True)
class Result:
    """A case, its answer, and what is wrong with that."""

    case: Case
    answer: Answer
    wrong: list[str]

    @property
    def detail(self) -> str:
        document = self.answer.document()
        return str(document.get("detail", "")) or ("accepted" if self.answer.status < 300 else "")


def all_cases(limit_bytes: int) -> list[Case]:
    """For a service whose largest text has so many bytes."""
    model = tiny_checkpoint()
    generating = [*generation.cases(model), *scores.cases()]
    return [*texts.cases(limit_bytes), *jobs.cases(), *generating, *protocol.cases()]


@dataclass(frozen=True, slots=True)
class Stage:
    """Ids of a corpus, a model and a finished job of one name."""

    corpus: str
    model: str
    job: str


def stage(http: httpx.Client, name: str = NAME) -> Stage:
    """They are there now."""
    corpus = _made(http, "/corpora", name, b"to be, or not to be, that is the question\n" * 100)
    model = _made(http, "/models", name, tiny_checkpoint())
    job = http.post("/jobs", json={"corpus": name, "preset": "tiny", "training": {"steps": 1}}).raise_for_status()
    path = f"/jobs/{job.json()['id']}"
    http.post(f"{path}/cancel")
    wait_for("the end of the job", lambda: http.get(path).json()["status"] in FINISHED or None)
    return Stage(corpus, model, job.json()["id"])


@contextmanager
def scene(http: httpx.Client) -> Iterator[None]:
    """What the table speaks of is there, and gone afterwards."""
    staged = stage(http)
    short = _made(http, "/corpora", jobs.SHORT, b"ab")
    try:
        yield
    finally:
        for path in (f"jobs/{staged.job}", f"models/{staged.model}", f"corpora/{staged.corpus}", f"corpora/{short}"):
            http.delete(path).raise_for_status()


def _made(http: httpx.Client, path: str, name: str, data: bytes) -> str:
    answer = http.post(path, files={"file": ("bad-input", data)}, data={"name": name}).raise_for_status()
    return str(answer.json()["id"])


class Run:
    """One walk through the table."""

    def __init__(self, http: httpx.Client, limit_bytes: int) -> None:
        self._http = http
        self._url = str(http.base_url)
        self._limit_bytes = limit_bytes
        paths = http.get("/openapi.json").raise_for_status().json()["paths"]
        self._paths = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), paths[path]) for path in paths]

    def results(self) -> Iterator[Result]:
        for case in all_cases(self._limit_bytes):
            before = self._stored()
            answer = exchange(self._url, case.send())
            wrong = [*self._compare(case, answer), *self._check_document(case, answer)]
            if answer.status in (201, 202):
                wrong += self._take_back(case, answer)
            if self._stored() != before:
                wrong.append("what is stored has changed")
            yield Result(case, answer, wrong)

    def _compare(self, case: Case, answer: Answer) -> Iterator[str]:
        document = answer.document()
        if answer.status != case.status:
            yield f"status {answer.status}, not {case.status}"
        if answer.status >= 400:
            yield from self._check_problem(document, answer)
        if case.code != document.get("code", ""):
            yield f"code {document.get('code')}, not {case.code}"
        if case.says not in json.dumps(document, ensure_ascii=False, separators=(",", ":")):
            yield f"does not say {case.says!r}"

    def _check_problem(self, document: dict[str, Any], answer: Answer) -> Iterator[str]:
        if answer.kind != "application/problem+json":
            yield f"content type {answer.kind}"
        if not {"type", "title", "status", "detail", "code"} <= document.keys():
            yield "no problem document"
        if document.get("status") != answer.status:
            yield f"says of itself that it is {document.get('status')}"
        if len(answer.body) > 20_000:
            yield f"an error of {len(answer.body)} bytes"
        if answer.sent_bytes > self._limit_bytes + LINGER_BYTES:
            yield f"{answer.sent_bytes} bytes were taken"

    def _check_document(self, case: Case, answer: Answer) -> Iterator[str]:
        """The status is in the OpenAPI document, if it has the operation."""
        line = next(iter(case.send())).split(b"\r\n")[0].decode("latin-1").split(" ")
        for pattern, operations in self._paths:
            operation = operations.get(line[0].lower()) if len(line) == 3 and line[0].isupper() else None
            if operation and pattern.fullmatch(line[1].split("?")[0]):
                documented = operation["responses"].get(str(answer.status))
                if documented is None:
                    yield f"{answer.status} is not in the OpenAPI document"
                elif answer.status >= 400:
                    yield from self._check_names(documented["content"][answer.kind]["example"], answer)
                return

    def _check_names(self, documented: dict[str, Any], answer: Answer) -> Iterator[str]:
        named = ("title",) if answer.status in SEVERAL_CODES else ("title", "code")
        document = answer.document()
        for name in named:
            if document.get(name) != documented[name]:
                yield f"{name} {document.get(name)!r}, in the OpenAPI document {documented[name]!r}"

    def _take_back(self, case: Case, answer: Answer) -> Iterator[str]:
        """Read what was accepted, and delete it."""
        location = answer.headers["location"]
        if case.back is not None and self._http.get(f"{location}/text").content != case.back:
            yield "the text did not come back byte for byte"
        self._http.delete(location).raise_for_status()

    def _stored(self) -> list[tuple[str, str]]:
        """The newest of everything: what a refused request stored would be among them."""
        pages = [self._http.get(f"/{kind}").raise_for_status().json()["data"] for kind in ("corpora", "jobs", "models")]
        return [(item["id"], item.get("status", "")) for page in pages for item in page]
