"""Bad jobs: settings, bodies, headers, and calls that do not go with where a job stands."""

from typing import Any

from tests.bad_inputs.case import NAME, Case, called, posted

DEEP = 100_000
SHORT = "bad-input-short"
"""A corpus of two characters."""
OFF_RANGE: dict[str, list[Any]] = {
    "model.cell": ["transformer", 1, ""],
    "model.hidden_size": [0, -1, 16_385, 1.5, "256", True, 2**63, [], {}],
    "model.num_layers": [0, 17],
    "model.embedding_size": [0, 16_385],
    "model.dropout": [-0.1, 0.96, "0.1", 5e-324],
    "model.normalization": ["nfkc"],
    "model.hiden_size": [256],
    "training.epochs": [0, -1, 1e7, 5e-324],
    "training.steps": [0, 10**9 + 1, 0.5],
    "training.minutes": [0, -1, 60 * 24 * 91, 1e-310],
    "training.batch_size": [0, 4097],
    "training.sequence_length": [0, 4097],
    "training.learning_rate": [0, -1, 11, 1e-310],
    "training.gradient_clip": [0, 1e7, 1e-310],
    "training.weight_decay": [-1, 11, 1e-310],
    "training.average_decay": [-0.1, 1, 0.999991, 1e-310],
    "training.state_reset": [-0.1, 1.1, 1e-310],
    "training.validation_fraction": [-0.1, 0.6, 5e-324],
    "training.patience": [0],
    "training.seed": [-1, 2**63],
    "training.precision": ["float64"],
    "training.evaluate_every": [0],
    "training.softmax_samples": [-1, 10**6 + 1],
}
ENORMOUS = {"hidden_size": 16_384, "num_layers": 16}


def cases() -> list[Case]:
    return [*settings(), *continued(), *bodies(), *calls(), *history()]


def settings() -> list[Case]:
    return [
        *(_setting(field, value) for field, values in OFF_RANGE.items() for value in values),
        _job("two budgets", 422, "invalid_setting", "one budget", training={"steps": 1, "minutes": 1}),
        _job("patience without validation", 422, "invalid_setting", "training.patience",
             training={"patience": 2, "validation_fraction": 0}),
        _job("shorter than a sequence", 422, "corpus_too_short", "needs at least", corpus=SHORT),
        _job("more memory than there is", 422, "too_much_memory", "iB of memory", model=ENORMOUS),
        _job("unknown corpus", 404, "corpus_not_found", "nobody", corpus="nobody"),
        _job("a corpus that looks like a path", 404, "corpus_not_found", corpus="../../etc/passwd"),
        _job("a corpus with NUL", 404, "corpus_not_found", corpus="a\0b"),
        _job("a corpus of 10 KB", 422, "invalid_request", "corpus", corpus="c" * 10_000),
        _job("no corpus named", 422, "invalid_request", "corpus", corpus=""),
        _job("a name that looks like an id", 422, "invalid_name", "form of an id", name="job_" + "a" * 26),
        _job("a name that looks like a path", 422, "invalid_name", name="../up"),
        _job("a name of two dots", 422, "invalid_name", "folder", name=".."),
        _job("a name of 10 KB", 422, "invalid_name", name="n" * 10_000),
        _job("an empty name", 422, "invalid_name", name=""),
        _job("a preset that is none", 422, "invalid_request", "preset", preset="huge"),
        _job("an unknown field", 422, "invalid_request", "did you mean corpus?", corpsu="x"),
        _job("a field in the wrong place", 422, "invalid_request", "did you mean training.minutes?", minutes=1),
        _job("an empty Idempotency-Key", 422, "invalid_request", "idempotency", key=""),
        _job("an Idempotency-Key of 10 KB", 422, "invalid_request", "idempotency", key="k" * 10_000),
    ]  # fmt: skip


def continued() -> list[Case]:
    def start(what: str, code: str, says: str, value: Any = NAME, status: int = 422, **fields: Any) -> Case:
        return _job(f"from a checkpoint: {what}", status, code, says, from_checkpoint=value, **fields)

    unknown = "model_not_found"
    return [
        start("of a model that is not there", unknown, "nobody", "nobody", 404),
        start("of an unknown id", unknown, "model_", f"model_{'a' * 26}", 404),
        start("of a path", unknown, "passwd", "../../etc/passwd", 404),
        start("NUL", unknown, "", "a\0b", 404),
        start("a step that is not there", "checkpoint_not_found", "@71", f"{NAME}@71", 404),
        start("a step that is no number", "checkpoint_not_found", "@best", f"{NAME}@best", 404),
        start("an unknown checkpoint", "checkpoint_not_found", "", f"checkpoint_{'a' * 26}", 404),
        start("no name", "invalid_request", "from_checkpoint", ""),
        start("10 KB", "invalid_request", "from_checkpoint", "c" * 10_000),
        *(start(f"{value!r}", "invalid_request", "from_checkpoint", value) for value in (7, True, [], {"id": "x"})),
        start("a preset beside it", "invalid_setting", "preset", preset="tiny"),
        start("another cell", "invalid_setting", "the checkpoint has 'gru'", model={"cell": "lstm"}),
        start("another width", "invalid_setting", "the checkpoint has 8", model={"hidden_size": 9}),
        start("more layers", "invalid_setting", "the checkpoint has 1", model={"num_layers": 2}),
        start("wider embeddings", "invalid_setting", "the checkpoint has 4", model={"embedding_size": 5}),
        start("another normalization", "invalid_setting", "checkpoint has 'none'", model={"normalization": "nfc"}),
        start("dropout out of range", "invalid_setting", "model.dropout", model={"dropout": 1}),
        start("width out of range", "invalid_setting", "model.hidden_size", model={"hidden_size": 0}),
        start("a corpus too short", "corpus_too_short", "needs at least", corpus=SHORT),
        start("an unknown corpus", "corpus_not_found", "nobody", corpus="nobody", status=404),
    ]


def _setting(field: str, value: Any) -> Case:
    section, _, name = field.partition(".")
    strict = isinstance(value, bool | str | list | dict) or (isinstance(value, float) and name in WHOLE)
    code = "invalid_request" if strict or name in UNKNOWN else "invalid_setting"
    return _job(f"{field} = {value!r}", 422, code, field, **{section: {name: value}})


WHOLE = {"hidden_size", "steps"}
UNKNOWN = {"hiden_size", "cell"}


def _job(what: str, status: int, code: str, says: str = "", *, key: str | None = None, **fields: Any) -> Case:
    headers = [] if key is None else [("Idempotency-Key", key)]
    return posted(f"job: {what}", "/jobs", {"corpus": NAME} | fields, status, code, says, headers=headers)


def bodies() -> list[Case]:
    def raw(what: str, body: bytes, status: int = 422, code: str = "invalid_request", says: str = "") -> Case:
        return posted(f"job: {what}", "/jobs", body, status, code, says)

    def setting(field: bytes, value: bytes) -> bytes:
        return b'{"corpus": "%s", "training": {"%s": %s}}' % (NAME.encode(), field, value)

    return [
        raw("no body", b""),
        raw("half a body", b'{"corpus": "x', says="line 1, column 12"),
        raw("a list", b"[]"),
        raw("null", b"null"),
        raw("invalid UTF-8", b'{"corpus": "\xff"}', 400, "bad_request", "0xff at byte 12"),
        raw("NaN as a number", setting(b"learning_rate", b"NaN"), says="learning_rate"),
        raw("Infinity", setting(b"minutes", b"Infinity"), says="minutes"),
        raw("-Infinity", setting(b"minutes", b"-Infinity"), says="minutes"),
        raw("1e999", setting(b"minutes", b"1e999"), says="minutes"),
        raw("an integer of 5,000 digits", setting(b"seed", b"9" * 5000), 400, "bad_request", "4300 digits"),
        raw("an integer of 4,000 digits", setting(b"seed", b"9" * 4000), 422, "invalid_setting", "seed"),
        raw("half a surrogate pair", b'{"corpus": "\\ud800"}', says="corpus"),
        raw("half a surrogate pair as a name", b'{"corpus": "x", "name": "\\udfff"}', says="name"),
        raw("half a surrogate pair as a field", b'{"corpus": "x", "\\ud800": 1}'),
        raw("lists 100,000 deep", b'{"corpus": ' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "bad_request", "too deeply"),
        raw("objects 100,000 deep", b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400, "bad_request"),
        raw("50,000 unknown fields", b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}"),
        raw("a field given twice, the last one wrong", b'{"corpus": "x", "corpus": 1}', says="corpus"),
        posted("job: as plain text", "/jobs", b'{"corpus": "x"}', kind="text/plain"),
        posted("job: of no type", "/jobs", b'{"corpus": "x"}', says="Content-Type: application/json", kind=None),
        posted("job: as a form", "/jobs", b"corpus=x", says="Content-Type: application/json",
               kind="application/x-www-form-urlencoded"),
        posted("job: of a type of no sense", "/jobs", b'{"corpus": "x"}', kind=b"\xff\x80"),
        posted("job: as XML", "/jobs", b"<corpus/>", kind="application/xml"),
        posted("job: gzipped", "/jobs", b"\x1f\x8b\x08\x00", 415, "unsupported_encoding",
               headers=[("Content-Encoding", "gzip")]),
    ]  # fmt: skip


def calls() -> list[Case]:
    unknown = f"/jobs/job_{'a' * 26}"
    return [
        *(called(f"{act} a finished job", "POST", f"/jobs/{NAME}/{act}", 409, "conflict")
          for act in ("cancel", "pause", "resume")),
        *(called(f"{act} an unknown job", "POST", f"{unknown}/{act}", 404, "job_not_found")
          for act in ("cancel", "pause", "resume")),
        called("an unknown act", "POST", f"/jobs/{NAME}/explode", 404, "not_found"),
        called("an unknown job", "GET", unknown, 404, "job_not_found"),
        called("delete an unknown job", "DELETE", unknown, 404, "job_not_found"),
        called("NUL in a job's name", "GET", "/jobs/%00", 404, "job_not_found"),
        called("a status that is none", "GET", "/jobs?status=dead", 422, "invalid_request", "status"),
        called("a cursor of jobs that is none", "GET", "/jobs?after=x", 422, "invalid_cursor", "after"),
    ]  # fmt: skip


def history() -> list[Case]:
    events = f"/jobs/{NAME}/events"
    bad_ids = {"letters": "abc", "negative": "-1", "a fraction": "1.5", "2^63": str(2**63), "empty": "",
               "5,000 digits": "9" * 5000, "not ASCII": b"\xb2\xff"}  # fmt: skip
    return [
        *(called(f"Last-Event-ID: {what}", "GET", events, 422, "invalid_request", "last-event-id",
                 headers=[("Last-Event-ID", value)]) for what, value in bad_ids.items()),
        *(called(f"{what} of an unknown job", "GET", f"/jobs/nobody/{what}", 404, "job_not_found")
          for what in ("events", "metrics", "loss.png", "loss.svg")),
        *(called(f"metrics: Accept: {accept[:20]}", "GET", f"/jobs/{NAME}/metrics", 406, "not_acceptable",
                 headers=[("Accept", accept)])
          for accept in ("image/png", "text/csv;q=0", "nonsense", ";;;,,,", "text/csv;q=NaN", "x/y," * 10_000)),
        called("metrics: a format that is none", "GET", f"/jobs/{NAME}/metrics?format=xml", 422, "invalid_request",
               "format"),
        called("a theme that is none", "GET", f"/jobs/{NAME}/loss.svg?theme=blue", 422, "invalid_request", "theme"),
        called("compared to an unknown job", "GET", f"/jobs/{NAME}/loss.png?compare=nobody", 404, "job_not_found"),
        called("compared to no name", "GET", f"/jobs/{NAME}/loss.png?compare=", 404, "job_not_found"),
        called("a picture of another kind", "GET", f"/jobs/{NAME}/loss.gif", 404, "not_found"),
    ]  # fmt: skip
