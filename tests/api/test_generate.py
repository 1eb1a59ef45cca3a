"""`/generate` on a real service: three content types, one text; what is refused; what is told."""

import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.generating import ALPHABET, GeneratingService, generating_service, store_model, tiny_checkpoint
from tests.api.service import assert_problem

KINDS = ["text/plain", "text/event-stream", "application/json"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_prompt_characters=2000) as made:
        yield made


def events_of(answer: httpx.Response) -> list[tuple[str, dict[str, object]]]:
    """Name and data of every server-sent event."""
    events = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((fields.get("event", "message"), json.loads(fields["data"])))
    return events


def text_of(answer: httpx.Response) -> str:
    """The text of an answer of any of the three types."""
    kind = answer.headers["content-type"].split(";")[0]
    if kind == "text/plain":
        return answer.text
    if kind == "application/json":
        return str(answer.json()["text"])
    return "".join(str(data["text"]) for name, data in events_of(answer) if name == "message")


def test_the_three_content_types_carry_the_same_text(service: GeneratingService) -> None:
    answers = [service.generate(kind, prompt="once ", seed=7, max_characters=300) for kind in KINDS]
    texts = {text_of(answer) for answer in answers}
    assert len(texts) == 1
    assert len(texts.pop()) == 300
    assert {answer.status_code for answer in answers} == {200}


def test_plain_text_is_the_default_and_nothing_but_the_characters(service: GeneratingService) -> None:
    answer = service.http.post("/generate", json={"model": "tiny", "seed": 1, "max_characters": 40})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert len(answer.text) == 40
    assert set(answer.text) <= set(ALPHABET)


def test_the_last_event_tells_how_the_text_ended(service: GeneratingService) -> None:
    answer = service.generate("text/event-stream", seed=3, max_characters=50)
    *pieces, (name, done) = events_of(answer)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert {kind for kind, _ in pieces} == {"message"}
    assert name == "done"
    assert str(done.pop("state"))
    assert done == {
        "finish_reason": "length", "characters": 50, "held_back": "", "seed": 3, "model": service.model.id,
        "checkpoint_step": 70,
    }  # fmt: skip


def test_json_holds_the_text_and_the_same_facts(service: GeneratingService) -> None:
    document = service.generate("application/json", seed=3, max_characters=50).json()
    assert document.pop("state")
    assert document == {
        "text": service.generate(seed=3, max_characters=50).text, "finish_reason": "length", "characters": 50,
        "held_back": "", "seed": 3, "model": service.model.id, "checkpoint_step": 70,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_headers_tell_seed_model_and_step_and_forbid_buffering(service: GeneratingService, kind: str) -> None:
    headers = service.generate(kind, seed=2**63 - 1, max_characters=1).headers
    assert headers["x-seed"] == str(2**63 - 1)
    assert headers["x-model"] == service.model.id
    assert headers["x-checkpoint-step"] == "70"
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-store"


def test_a_drawn_seed_is_told_and_gives_the_same_text_again(service: GeneratingService) -> None:
    first, other = service.generate(max_characters=80), service.generate(max_characters=80)
    assert first.headers["x-seed"] != other.headers["x-seed"]
    assert int(first.headers["x-seed"]) < 2**53
    assert service.generate(max_characters=80, seed=int(first.headers["x-seed"])).text == first.text


def test_get_takes_the_same_fields_as_query_parameters(service: GeneratingService) -> None:
    fields: dict[str, Any] = {
        "prompt": "é 日\n",
        "seed": 5,
        "max_characters": 60,
        "temperature": 0.7,
        "top_k": 9,
        "top_p": 0.9,
    }
    asked = service.http.get("/generate", params={"model": "tiny", "stop": ["q", "zz"], **fields})
    assert asked.status_code == 200
    assert asked.text == service.generate(stop=["q", "zz"], **fields).text


def test_a_model_is_named_by_id_by_name_or_with_a_step(service: GeneratingService) -> None:
    texts = {service.generate(model=key, seed=1).text for key in ("tiny", service.model.id, "tiny@70")}
    assert len(texts) == 1


def test_a_model_stays_loaded_between_requests(service: GeneratingService) -> None:
    service.generate(max_characters=1)
    service.wait_for_rows(0)
    loads = service.count("loads")
    for kind in KINDS:
        service.generate(kind, max_characters=1)
        service.http.post("/score", json={"model": "tiny", "text": "abc"})
        service.wait_for_rows(0)
    assert service.count("loads") == loads


def test_temperature_0_always_takes_the_likeliest_character(service: GeneratingService) -> None:
    assert service.generate(temperature=0, seed=1).text == service.generate(temperature=0, seed=2).text


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_ends_the_text_and_is_not_written(service: GeneratingService, kind: str) -> None:
    whole = service.generate(seed=7, max_characters=300).text
    stop = whole[100:103]
    answer = service.generate(kind, seed=7, max_characters=300, stop=["never there", stop])
    assert text_of(answer) == whole[: whole.index(stop)]
    if kind == "application/json":
        assert answer.json()["finish_reason"] == "stop"
        assert answer.json()["characters"] == whole.index(stop)


def test_a_prompt_is_normalized_as_the_models_texts_were(service: GeneratingService) -> None:
    store_model(service.database, "composed", tiny_checkpoint(normalization="nfc"))
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    assert len(decomposed) == 2
    texts = {service.generate(model="composed", prompt=prompt, seed=1).text for prompt in (composed, decomposed)}
    assert len(texts) == 1


def test_a_character_that_the_model_does_not_know_is_named_with_its_place(service: GeneratingService) -> None:
    problem = assert_problem(service.generate(prompt="ab€"), 422, "prompt")
    assert problem["code"] == "unknown_character"
    assert (problem["character"], problem["position"]) == ("€", 2)
    assert "U+20AC" in problem["detail"]
    assert "position 2" in problem["detail"]


@pytest.mark.parametrize("prompt", ["a€b\r", "€"])
def test_unknown_characters_are_left_out_of_the_prompt_where_that_is_asked_for(
    service: GeneratingService, prompt: str
) -> None:
    known = "".join(c for c in prompt if c in ALPHABET)
    expected = service.generate(prompt=known, seed=1).text
    assert service.generate(prompt=prompt, seed=1, unknown="skip").text == expected
    query = {"model": "tiny", "prompt": prompt, "seed": 1, "unknown": "skip"}
    assert service.http.get("/generate", params=query).text == expected
    assert_problem(service.generate(prompt=prompt, unknown="refuse"), 422, "prompt")
    assert_problem(service.generate(prompt=prompt, unknown="ignore"), 422, "unknown")


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1), ("temperature", 11), ("top_p", 0), ("min_p", 2), ("top_k", -1), ("max_characters", 0),
     ("max_characters", 10**9), ("seed", -1), ("stop", [""]), ("stop", ["x"] * 17), ("prompt", "a" * 2001),
     ("temprature", 1), ("repetition_penalty", 0), ("presence_penalty", 11), ("frequency_penalty", -11), ("n", 0),
     ("n", 17), ("n", 2), ("continue_from", ""), ("continue_from", "bm8gc3RhdGU")],
)  # fmt: skip
def test_a_field_out_of_range_is_refused_by_name(service: GeneratingService, field: str, value: Any) -> None:
    problem = assert_problem(service.generate(**{field: value}), 422)
    assert problem["errors"][0]["field"].startswith(field)


def test_half_a_surrogate_pair_in_a_prompt_is_refused(service: GeneratingService) -> None:
    body = b'{"model": "tiny", "prompt": "\\ud83d"}'
    answer = service.http.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "prompt")


@pytest.mark.parametrize("model", ["nobody", "tiny@71", "model_00000000000000000000000000"])
def test_an_unknown_model_or_step_is_not_found(service: GeneratingService, model: str) -> None:
    assert_problem(service.generate(model=model), 404)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/plain"),
        ("application/json", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("text/plain;q=0.5, application/json;q=0.9", "application/json"),
        ("text/plain;q=0, */*;q=0.1", "text/event-stream"),
    ],
)
def test_the_accept_header_chooses_the_content_type(service: GeneratingService, accept: str, kind: str) -> None:
    answer = service.generate(accept, max_characters=1)
    assert answer.headers["content-type"].split(";")[0] == kind


def test_a_content_type_that_is_not_offered_answers_406(service: GeneratingService) -> None:
    problem = assert_problem(service.generate("image/png"), 406)
    assert "text/event-stream" in problem["detail"]


def test_a_damaged_checkpoint_is_never_used(service: GeneratingService) -> None:
    store_model(service.database, "no-model", b"not a safetensors file")
    problem = assert_problem(service.generate(model="no-model"), 422)
    assert problem["code"] == "invalid_checkpoint"


def test_an_upload_is_loaded_before_it_becomes_a_model(service: GeneratingService) -> None:
    data = bytearray(tiny_checkpoint())
    data[-4:] = b"\x00\x00\x80\x7f"  # the last weight: infinity; the header is sound
    refused = service.http.post("/models", files={"file": ("bad.safetensors", bytes(data))})
    assert assert_problem(refused, 422, "file")["code"] == "invalid_model_file"
    taken = service.http.post("/models", files={"file": ("good.safetensors", tiny_checkpoint())})
    assert taken.status_code == 201
    assert len(service.generate(model=taken.json()["id"], max_characters=10).text) == 10


def test_every_row_is_free_after_all_this(service: GeneratingService) -> None:
    service.generate("application/json", prompt="€")
    service.wait_for_rows(0)


def test_the_service_itself_never_imported_torch() -> None:
    code = (
        "import sys, app.main, app.server, app.generation.streams; "
        "assert not {'torch', 'safetensors.torch'} & set(sys.modules), 'torch was imported'"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)
