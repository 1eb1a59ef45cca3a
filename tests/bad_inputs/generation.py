"""Bad requests for text, and files that are no models."""

import json
import pickle
from typing import Any
from urllib.parse import quote

from tests.bad_inputs.case import NAME, Case, called, posted
from tests.bad_inputs.wire import FORM, form, part, request

OFF_RANGE: dict[str, list[Any]] = {
    "max_characters": [0, -1, 10**9, 1.5, "5", True],
    "temperature": [-1, 10.5, "hot", True],
    "top_k": [-1, 1_000_001],
    "top_p": [0, 1.1, -1],
    "min_p": [-0.1, 1.1],
    "seed": [-1, 2**63, 0.5],
    "repetition_penalty": [0, -1, 11, "2"],
    "presence_penalty": [10.5, -11],
    "frequency_penalty": [10.5, -11],
    "allowed_characters": [1, ["a"], "a" * 100_001],
    "forbidden_characters": [None, "a" * 100_001],
    "n": [0, 17, 1.5, 2],
    "stop": ["x", [""], ["x"] * 17, ["x" * 257], [1]],
    "unknown": ["ignore"],
    "temprature": [1],
    "prompt": [1, None],
}


def cases(model_file: bytes) -> list[Case]:
    """`model_file` is a model that can be uploaded."""
    return [*requests(), *bodies(), *queries(), *uploads(model_file), *calls()]


def requests() -> list[Case]:
    unknown, refused = "unknown_character", "invalid_request"
    return [
        *(_text(f"{field} = {str(value)[:20]}", 422, refused, field, **{field: value})
          for field, values in OFF_RANGE.items() for value in values),
        _text("a character that the model does not know", 422, unknown, "EURO SIGN) at position 2", prompt="ab€"),
        _text("the same, unknown=skip", 200, prompt="ab€", unknown="skip", max_characters=5),
        _text("nothing but unknown characters, unknown=skip", 200, prompt="€", unknown="skip", max_characters=5),
        _text("NUL in a prompt", 422, unknown, "U+0000", prompt="a\0"),
        _text("a prompt over the limit", 422, "prompt_too_long", "100000", prompt="a" * 100_001),
        _text("a prompt of 20 MB", 413, "content_too_large", prompt="a" * 20_000_000),
        _text("no character is allowed", 422, "nothing_allowed", "allowed_characters", allowed_characters=""),
        _text("only unknown characters are allowed", 422, "nothing_allowed", "none may", allowed_characters="€"),
        *(_text(f"no state: {state[:9]!r}, {len(state)}", 422, "invalid_state", "continue_from", continue_from=state)
          for state in ("x", "é", "bm8gc3RhdGU", "A" * 43, "A" * 1000, "\0")),
        _text("a state of 9 MB", 422, refused, "continue_from", continue_from="A" * 9_000_000),
        _text("an unknown model", 404, "model_not_found", "nobody", model="nobody"),
        _text("an unknown step", 404, "checkpoint_not_found", model=f"{NAME}@999"),
        _text("a step of 100 digits", 404, "checkpoint_not_found", model=f"{NAME}@{'9' * 100}"),
        _text("a step that is none", 404, "checkpoint_not_found", model=f"{NAME}@"),
        _text("a step in other digits", 404, "checkpoint_not_found", model=f"{NAME}@٧٠"),
        _text("a corpus's id for a model", 404, "model_not_found", model="corpus_" + "a" * 26),
        _text("a model that looks like a path", 404, "model_not_found", model="../../etc/passwd"),
        _text("a model with NUL", 404, "model_not_found", model="\0"),
        _text("no model named", 422, refused, "model", model=""),
        *(_accept(accept) for accept in ("image/png", "nonsense", "text/plain;q=0", "application/*;q=0, video/*")),
    ]  # fmt: skip


def _text(what: str, status: int, code: str = "", says: str = "", **fields: Any) -> Case:
    return posted(f"text: {what}", "/generate", {"model": NAME} | fields, status, code, says)


def _accept(accept: str) -> Case:
    return posted(f"text: Accept: {accept}", "/generate", {"model": NAME}, 406, "not_acceptable",
                  headers=[("Accept", accept)])  # fmt: skip


def bodies() -> list[Case]:
    def raw(what: str, body: bytes, status: int = 422, code: str = "invalid_request", says: str = "") -> Case:
        return posted(f"text: {what}", "/generate", body, status, code, says)

    def field(name: bytes, value: bytes) -> bytes:
        return b'{"model": "%s", "%s": %s}' % (NAME.encode(), name, value)

    return [
        raw("no body", b""),
        # As bytes: a test before this one may have left the process flushing such numbers to 0.
        raw("the smallest share there is", field(b"top_p", b"5e-324"), 200, ""),
        raw("the smallest temperature there is", field(b"temperature", b"5e-324"), 200, ""),
        raw("NaN", field(b"temperature", b"NaN"), says="temperature"),
        raw("Infinity", field(b"temperature", b"Infinity"), says="temperature"),
        raw("an integer of 5,000 digits", field(b"seed", b"9" * 5000), 400, "bad_request"),
        raw("half a surrogate pair in a prompt", field(b"prompt", b'"\\ud83d"'), says="surrogate"),
        raw("half a surrogate pair in a stop", field(b"stop", b'["\\udfff"]'), says="surrogate"),
        raw("lists 100,000 deep", field(b"stop", b"[" * 100_000 + b"]" * 100_000), 400, "bad_request"),
        raw("invalid UTF-8", field(b"prompt", b'"\xff"'), 400, "bad_request"),
    ]


def queries() -> list[Case]:
    def asked(what: str, query: str, status: int = 422, code: str = "invalid_request", says: str = "") -> Case:
        return called(f"text by GET: {what}", "GET", f"/generate?{query}", status, code, says)

    return [
        asked("no query", "", says="model"),
        asked("an unknown field", f"model={NAME}&temprature=1", says="temprature"),
        asked("a field given twice, the last one wrong", f"model={NAME}&top_k=1&top_k=-1", says="top_k"),
        asked("NaN", f"model={NAME}&temperature=NaN", says="temperature"),
        asked("an integer of 5,000 digits", f"model={NAME}&seed={'9' * 5000}", says="seed"),
        asked("invalid UTF-8", f"model={NAME}&prompt=%ff", 422, "unknown_character", "U+FFFD"),
        asked("NUL", f"model={NAME}&prompt=a%00", 422, "unknown_character", "U+0000"),
        asked("an unknown character", f"model={NAME}&prompt={quote('ab€')}", 422, "unknown_character", "U+20AC"),
        asked("the same, unknown=skip", f"model={NAME}&prompt={quote('ab€')}&unknown=skip&max_characters=5", 200, ""),
        asked("17 stops", f"model={NAME}" + "&stop=x" * 17, says="stop"),
    ]


def uploads(model_file: bytes) -> list[Case]:
    def sent(what: str, data: bytes, says: str = "", code: str = "invalid_model_file", status: int = 422) -> Case:
        body = form(part("file", data, "model.safetensors"))
        return Case(f"model file: {what}", lambda: request("POST", "/models", body, FORM), status, code, says)

    def header(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text

    length = int.from_bytes(model_file[:8], "little")
    damaged = bytearray(model_file)
    damaged[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    return [
        sent("empty", b"", "too short"),
        sent("7 bytes", b"1234567", "too short"),
        sent("a text", b"to be, or not to be\n" * 100),
        sent("a pickle", pickle.dumps({"weights": [1.0] * 1000})),
        sent("a pickle that runs a program", b"cos\nsystem\n(S'exit 1'\ntR."),
        sent("a zip archive, as torch.save writes", b"PK\x03\x04" + bytes(100)),
        sent("cut in the header", model_file[:100]),
        sent("cut by a byte", model_file[:-1]),
        sent("a byte too many", model_file + b"x"),
        sent("a header of 2^63 bytes", (2**63).to_bytes(8, "little") + b"{}"),
        sent("a header that is no JSON", header(b"{" * 64)),
        sent("a header 100,000 deep", header(b"[" * 100_000 + b"]" * 100_000)),
        sent("a header with a number of 5,000 digits", header(b'{"a": ' + b"9" * 5000 + b"}")),
        sent("a header of invalid UTF-8", header(b'{"\xff": 1}')),
        sent("a header of another network", header(json.dumps({"__metadata__": {"format": "pt"}}).encode())),
        sent("metadata that is no text", model_file[:8] + b"\xff" * length + model_file[8 + length :]),
        sent("a weight that is NaN", bytes(damaged)),
    ]


def calls() -> list[Case]:
    missing = "model_not_found"

    def named(what: str, name: bytes) -> Case:
        parts = part("name", name), part("file", b"x", "model.safetensors")
        return Case(f"model file: {what}", lambda: request("POST", "/models", form(*parts), FORM), 422, "invalid_name")

    return [
        named("a name like a path", b"../up"),
        named("a name of one dot", b"."),
        Case("model file: no file", lambda: request("POST", "/models", form(part("name", b"x")), FORM), 422,
             "invalid_request", "file"),
        called("an unknown model", "GET", "/models/nobody", 404, missing, "nobody"),
        called("delete an unknown model", "DELETE", "/models/nobody", 404, missing),
        called("download an unknown model", "GET", "/models/nobody/download", 404, missing),
        called("download an unknown step", "GET", f"/models/{NAME}@12345/download", 404, "checkpoint_not_found"),
        called("look at a step of 400 digits", "GET", f"/models/{NAME}@{'9' * 400}", 404, "checkpoint_not_found"),
        called("delete a checkpoint as a model", "DELETE", f"/models/{NAME}@70", 404, missing),
        called("NUL in a model's name", "GET", "/models/%00@%00", 404, missing),
        called("a cursor of models that is none", "GET", "/models?after=x", 422, "invalid_cursor", "after"),
    ]  # fmt: skip
