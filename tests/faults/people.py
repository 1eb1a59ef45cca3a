"""People who use a service that keeps dying: they write down what was acknowledged, and ask again for what was not.

Threads of their own beside whoever kills. Invariant: the ledger holds what a 2xx answer has told, and nothing else.
"""

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

TEXT = "".join(f"{n} green bottles hanging on the wall, and if one should fall\n" for n in range(400))
STEPS = 400
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {
        "model": {"cell": "lstm", "num_layers": 2, "hidden_size": 16, "embedding_size": 8, "dropout": 0.2},
        "training": {
            "steps": STEPS,
            "batch_size": 8,
            "sequence_length": 16,
            "evaluate_every": 40,
            "average_decay": 0.9,
        },
    },
    "gru": {
        "model": {"cell": "gru", "hidden_size": 24, "embedding_size": 8, "dropout": 0.1},
        "training": {"batch_size": 6, "sequence_length": 20, "evaluate_every": 50, "seed": 7},
    },
}
"""Two tiny networks: dropout, carried state, averaged weights, state resets (a default), two layers."""
KEPT = 5
"""Of each kind of thing; older ones are deleted."""
PATIENCE_SECONDS = 300.0
LARGE_BYTES = 5 * 1024 * 1024


class Lost(AssertionError):
    """Something acknowledged is missing, changed, or there twice."""


@dataclass
class Asked:
    """A request for a job, and what was answered."""

    key: str
    kind: str
    job_id: str
    to_be_cancelled: bool = False
    cancelled: bool = False
    """As it was answered."""
    verified: bool = False


@dataclass
class Ledger:
    """What was acknowledged and not deleted again, and what was deleted."""

    corpora: dict[str, str] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    jobs: list[Asked] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    acknowledged: int = 0
    repeated: int = 0
    """Requests for a job that were sent again and found the first one."""
    verified: int = 0
    """Jobs whose curve and weights were compared."""
    unanswered: int = 0
    """Calls that found nobody, or lost their answer."""
    longest_silence_seconds: float = 0.0


class Client:
    """Asks until it is answered."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._ledger = ledger
        self.tries = 0
        """Of the last call: more than one, where an answer was lost or nobody was there."""

    def call(self, method: str, path: str, *also: int, **how: Any) -> httpx.Response:
        """A 2xx answer, or one of the statuses in `also`. 503 is no answer; another 5xx is a fault."""
        began, self.tries = time.monotonic(), 0
        while True:
            self.tries += 1
            try:
                answer = self._http.request(method, path, **how)
            except httpx.HTTPError:
                self._ledger.unanswered += 1
            else:
                if answer.is_success or answer.status_code in also:
                    self._ledger.acknowledged += answer.is_success and method != "GET"
                    return answer
                if answer.status_code != 503:
                    raise Lost(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
            silent = time.monotonic() - began
            self._ledger.longest_silence_seconds = max(self._ledger.longest_silence_seconds, silent)
            if silent > PATIENCE_SECONDS:
                raise Lost(f"{method} {path} was not answered for {silent:.0f} s")
            time.sleep(0.05)

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True)
class Expected:
    """What an undisturbed training of a kind gives: its losses and its last weights."""

    losses: list[tuple[int, float | None, float | None]]
    weights: bytes


class People:
    """`begin` starts them, `end` lets them finish what is under way; then `reckon` compares.

    So many jobs as `waiting` says are to be trained at a time.
    """

    def __init__(self, url: str, seed: int, waiting: int) -> None:
        self.ledger = Ledger()
        self._waiting = waiting
        self.expected: dict[str, Expected] = {}
        self._draw = random.Random(f"people {seed}")
        self._number = itertools.count()
        self._clients = [Client(url, self.ledger), Client(url, self.ledger)]
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(self._one_round_of_jobs,), name="jobs", daemon=True),
            threading.Thread(target=self._live, args=(self._one_round_of_models,), name="models", daemon=True),
        ]
        self.faults: list[BaseException] = []

    def prepare(self) -> None:
        """The text of all jobs is there, and what an undisturbed training of each kind gives is known."""
        self._call("POST", "/corpora", files={"file": ("bottles.txt", TEXT.encode())}, data={"name": "bottles"})
        for kind in KINDS:
            asked = self.ask(kind)
            job = self._wait_for_end(asked.job_id)
            self.expected[kind] = Expected(self._losses(asked.job_id), self._weights(job))
            asked.verified = True

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """No new jobs; returns when the threads have ended. Their faults are in `faults`."""
        self._ending.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(2 * PATIENCE_SECONDS)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _live(self, one_round: Callable[[], None]) -> None:
        while not self._ending.is_set() and not self.faults:
            try:
                one_round()
            except BaseException as fault:  # noqa: BLE001 - told by whoever waits for us
                self.faults.append(fault)
            self._ending.wait(0.1)

    def _call(self, method: str, path: str, *also: int, **how: Any) -> httpx.Response:
        return self._clients[0].call(method, path, *also, **how)

    def _one_round_of_jobs(self) -> None:
        self.upload_text(large=self._draw.random() < 0.1)
        if sum(not one.verified and not one.to_be_cancelled for one in self.ledger.jobs) < self._waiting:
            self.ask(self._draw.choice(list(KINDS)), again=self._draw.random() < 0.5)
        unwanted = self.ask(self._draw.choice(list(KINDS)), again=self._draw.random() < 0.2)
        unwanted.to_be_cancelled = True
        answer = self._call("POST", f"/jobs/{unwanted.job_id}/cancel", 409)
        unwanted.cancelled = answer.is_success and answer.json()["status"] == "cancelled"
        self.look_at_jobs()
        self._tidy()

    def upload_text(self, large: bool) -> None:
        """A text of its own is uploaded. Raises Lost if it is taken for another one."""
        text = f"text {next(self._number)} {self._draw.random()} ".encode() * 20
        if large:
            text *= LARGE_BYTES // len(text)
        name = f"text-{next(self._number)}"
        answer = self._call("POST", "/corpora", files={"file": ("a.txt", text)}, data={"name": name}).json()
        digest = hashlib.sha256(text).hexdigest()
        if answer["sha256"] != digest:
            raise Lost(f"{name}: {answer} for a text of SHA-256 {digest}")
        self.ledger.corpora[answer["id"]] = digest

    def ask(self, kind: str, again: bool = False) -> Asked:
        """A job, by a key of its own; asked for once more if `again`, which must find the same."""
        key = f"key-{next(self._number)}"
        answer = self._request(key, kind)
        asked = Asked(key, kind, answer.json()["id"])
        self.ledger.jobs.append(asked)
        if again:
            self.ask_again(asked)
        return asked

    def ask_again(self, asked: Asked) -> None:
        """The same request with the same key finds the same job. Raises Lost."""
        answer = self._request(asked.key, asked.kind)
        if answer.json()["id"] != asked.job_id:
            raise Lost(f"{asked.key} came of {asked.job_id}, and now of {answer.json()['id']}")
        self.ledger.repeated += 1

    def _request(self, key: str, kind: str) -> httpx.Response:
        how = KINDS[kind]
        training = {"steps": STEPS, **how["training"]}
        order = {"corpus": "bottles", "name": kind, "model": how["model"], "training": training}
        return self._call("POST", "/jobs", json=order, headers={"Idempotency-Key": key})

    def look_at_jobs(self) -> int:
        """How many jobs have no end yet; those that were trained since the last look are compared. Raises Lost."""
        unfinished = 0
        for asked in [one for one in self.ledger.jobs if not one.verified]:
            job = self._call("GET", f"/jobs/{asked.job_id}").json()
            if asked.cancelled and job["status"] != "cancelled":
                raise Lost(f"{asked.job_id} was answered to be cancelled, and is {job['status']}")
            if job["status"] not in ("succeeded", "failed", "cancelled"):
                unfinished += 1
            elif job["status"] == "succeeded":
                self.compare(asked, job)
            elif job["status"] == "failed" or not asked.to_be_cancelled:
                raise Lost(f"{asked.job_id} is {job['status']}: {job['error']}")
            else:
                asked.verified = True
        return unfinished

    def compare(self, asked: Asked, job: dict[str, Any]) -> None:
        """A job that has succeeded has the curve and the last weights of an undisturbed one. Raises Lost."""
        expected = self.expected[asked.kind]
        if self._losses(asked.job_id) != expected.losses:
            raise Lost(f"{asked.job_id} ({asked.kind}) has another curve: {self._losses(asked.job_id)}")
        if self._weights(job) != expected.weights:
            raise Lost(f"{asked.job_id} ({asked.kind}) has other weights")
        asked.verified = True
        self.ledger.verified += 1

    def _wait_for_end(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            job: dict[str, Any] = self._call("GET", f"/jobs/{job_id}").json()
            if job["status"] == "succeeded":
                return job
            if job["status"] not in ("queued", "running"):
                break
            time.sleep(0.1)
        raise Lost(f"{job_id} did not succeed: {job}")

    def _losses(self, job_id: str) -> list[tuple[int, float | None, float | None]]:
        rows = self._call("GET", f"/jobs/{job_id}/metrics").json()["data"]
        return [(row["step"], row["train_loss"], row["val_loss"]) for row in rows]

    def _weights(self, job: dict[str, Any]) -> bytes:
        return self._call("GET", f"/models/{job['model_id']}@{STEPS}/download").content

    def _tidy(self) -> None:
        """Only the newest things stay: deleted ones must not come back."""
        for corpus_id in list(self.ledger.corpora)[:-KEPT]:
            self._delete(f"/corpora/{corpus_id}", corpus_id)
            del self.ledger.corpora[corpus_id]
        for asked in [one for one in self.ledger.jobs if one.verified][:-KEPT]:
            model_id = self._call("GET", f"/jobs/{asked.job_id}").json()["model_id"]
            self._delete(f"/jobs/{asked.job_id}", asked.job_id)
            self.ledger.jobs.remove(asked)
            if model_id is not None:
                self._delete(f"/models/{model_id}", model_id)

    def _delete(self, path: str, thing: str, client: int = 0) -> None:
        """What was acknowledged is there until now. Raises Lost."""
        asking = self._clients[client]
        asking.call("GET", path)
        answer = asking.call("DELETE", path, 404)
        if answer.status_code == 404 and asking.tries == 1:  # else it was deleted by a try whose answer was lost
            raise Lost(f"{thing} was there a moment ago, and was deleted by nobody")
        self.ledger.deleted.add(thing)

    def _one_round_of_models(self) -> None:
        weights = self.expected["gru"].weights
        files = {"file": ("m.safetensors", weights)}
        answer = self._clients[1].call("POST", "/models", files=files, data={"name": "copy"})
        self.ledger.models.append(answer.json()["id"])
        for model_id in self.ledger.models[:-KEPT]:
            self._delete(f"/models/{model_id}", model_id, client=1)
            self.ledger.models.remove(model_id)

    def reckon(self) -> None:
        """Everything acknowledged is listed, with what it was; nothing that was deleted is. Raises Lost."""
        listed = {kind: {one["id"]: one for one in self._list(kind)} for kind in ("corpora", "jobs", "models")}
        for corpus_id, digest in self.ledger.corpora.items():
            content = self._call("GET", f"/corpora/{corpus_id}/text").content
            if corpus_id not in listed["corpora"] or hashlib.sha256(content).hexdigest() != digest:
                raise Lost(f"{corpus_id} is not what was uploaded")
        wanted = {"jobs": [one.job_id for one in self.ledger.jobs], "models": self.ledger.models}
        missing = [one for kind, ids in wanted.items() for one in ids if one not in listed[kind]]
        risen = [one for found in listed.values() for one in found if one in self.ledger.deleted]
        if missing or risen:
            raise Lost(f"missing: {missing}; deleted and there again: {risen}")
        unknown = set(listed["jobs"]) - set(wanted["jobs"])
        if unknown:
            raise Lost(f"jobs that nobody has asked for, or twice: {unknown}")
        for model_id in self.ledger.models:
            if self._call("GET", f"/models/{model_id}/download").content != self.expected["gru"].weights:
                raise Lost(f"{model_id} is not what was uploaded")
        for asked in self.ledger.jobs:
            self.ask_again(asked)

    def _list(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            query = {"limit": 100} | ({"after": after} if after else {})
            page = self._call("GET", f"/{kind}", params=query).json()
            found += page["data"]
            after = page["next"]
            if after is None:
                return found
