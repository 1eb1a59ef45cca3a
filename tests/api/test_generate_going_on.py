"""Texts that go on from a state, and several texts of one prompt, on a real service."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.trained_models import delete_model
from tests.api.generating import GeneratingService, generating_service, store_model, tiny_checkpoint
from tests.api.service import assert_problem
from tests.api.test_generate import events_of

JSON, EVENTS = "application/json", "text/event-stream"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=8) as made:
        yield made


@pytest.mark.parametrize("kind", [JSON, EVENTS])
def test_a_text_that_goes_on_is_the_one_that_would_have_been_written_at_once(
    service: GeneratingService, kind: str
) -> None:
    settings: dict[str, Any] = {
        "seed": 7,
        "temperature": 1.4,
        "top_p": 0.97,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.05,
        "forbidden_characters": "x\n",
        "stop": ["qq", "never there"],
    }
    whole = service.generate(JSON, prompt="once ", max_characters=300, **settings).json()

    def told(**fields: Any) -> tuple[str, dict[str, Any]]:
        answer = service.generate(kind, max_characters=100, **fields)
        if kind == JSON:
            return answer.json()["text"], answer.json()
        *pieces, (name, done) = events_of(answer)
        assert name == "done"
        return "".join(str(data["text"]) for _, data in pieces), done

    text, last = told(prompt="once ", **settings)
    for _ in range(2):
        piece, last = told(continue_from=last["state"])  # the settings of before, where none are named
        text += piece
    assert text + last["held_back"] == whole["text"] + whole["held_back"]
    assert last["seed"] == 7


def test_what_a_request_names_is_not_taken_over(service: GeneratingService) -> None:
    state = service.generate(JSON, seed=7, temperature=0, max_characters=10).json()["state"]
    texts = [service.generate(continue_from=state, **fields).text for fields in ({}, {"temperature": 3}, {"n": 1})]
    assert texts[0] == texts[2]
    assert texts[0] != texts[1]
    assert len(texts[0]) == 500
    other = service.generate(JSON, continue_from=state, temperature=3, seed=8).json()
    assert other["seed"] == 8
    assert other["text"] != texts[1]


def test_a_prompt_is_read_after_the_text(service: GeneratingService) -> None:
    first = service.generate(JSON, prompt="once", temperature=0, max_characters=20).json()
    joined = service.generate(prompt="once" + first["text"] + " upon", temperature=0, max_characters=40).text
    assert service.generate(continue_from=first["state"], prompt=" upon", max_characters=40).text == joined


def test_plain_text_has_no_state_and_shows_what_would_be_held_back(service: GeneratingService) -> None:
    whole = service.generate(seed=7, max_characters=60).text
    stop = whole[57:60] + "never there"
    plain = service.generate(seed=7, max_characters=60, stop=[stop])
    assert plain.text == whole
    document = service.generate(JSON, seed=7, max_characters=60, stop=[stop]).json()
    assert document["text"] + document["held_back"] == whole
    assert document["held_back"]
    assert document["characters"] == len(document["text"])


def test_a_state_outlives_a_restart_and_belongs_to_one_installation(tmp_path: Path) -> None:
    with generating_service(tmp_path / "one") as service:
        first = service.generate(JSON, seed=1, max_characters=30).json()
        whole = service.generate(seed=1, max_characters=60).text
    with generating_service(tmp_path / "two") as other:
        problem = assert_problem(other.generate(continue_from=first["state"]), 422, "continue_from")
        assert problem["code"] == "invalid_state"
    with generating_service(tmp_path / "one") as again:
        # The model `tiny` is a newer one now: the state's own is meant, which has the same name.
        assert first["text"] + again.generate(continue_from=first["state"], max_characters=30).text == whole


def test_a_state_that_was_changed_is_refused(service: GeneratingService) -> None:
    state = service.generate(JSON, seed=1, max_characters=5).json()["state"]
    data = bytearray(base64.urlsafe_b64decode(state + "=" * (-len(state) % 4)))
    for place in (0, 40, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        answer = service.generate(continue_from=base64.urlsafe_b64encode(changed).decode())
        assert assert_problem(answer, 422, "continue_from")["code"] == "invalid_state"
    assert assert_problem(service.generate(continue_from=state[:-8]), 422)["code"] == "invalid_state"


def test_a_state_belongs_to_its_model_and_checkpoint(service: GeneratingService) -> None:
    store_model(service.database, "other", tiny_checkpoint(hidden_size=6))
    made = store_model(service.database, "short-lived", tiny_checkpoint(hidden_size=6))
    state = service.generate(JSON, model="short-lived", max_characters=5).json()["state"]
    for key in ("short-lived", made.id, "short-lived@70", "short-lived@070", f"{made.id}@70", "short-lived@latest"):
        assert service.generate(model=key, continue_from=state).status_code == 200
    for key in ("other", "tiny", "short-lived@71", "nobody"):
        problem = assert_problem(service.generate(model=key, continue_from=state), 422, "continue_from")
        assert "short-lived" in problem["detail"]
    delete_model(service.database, "short-lived")
    problem = assert_problem(service.generate(model="short-lived", continue_from=state), 404)
    assert problem["code"] == "checkpoint_not_found"


def test_get_goes_on_as_well(service: GeneratingService) -> None:
    first = service.generate(JSON, seed=1, max_characters=20).json()
    query = {"model": "tiny", "continue_from": first["state"], "max_characters": "20"}
    whole = service.generate(seed=1, max_characters=40).text
    assert first["text"] + service.http.get("/generate", params=query).text == whole


def test_a_state_is_a_few_kilobytes(service: GeneratingService) -> None:
    store_model(service.database, "wide", tiny_checkpoint(hidden_size=512))
    state = service.generate(JSON, model="wide", max_characters=5, frequency_penalty=1).json()["state"]
    assert len(state) < 4 * (512 * 4 + 1024) / 3


def test_several_texts_have_noise_of_their_own_and_the_first_is_the_one_of_a_single_request(
    service: GeneratingService,
) -> None:
    alone = service.generate(prompt="once", seed=3, max_characters=80).text
    document = service.generate(JSON, prompt="once", seed=3, max_characters=80, n=4).json()
    samples = document["samples"]
    assert [sample["index"] for sample in samples] == [0, 1, 2, 3]
    assert samples[0]["text"] == alone
    assert len({sample["text"] for sample in samples}) == 4
    assert {sample["characters"] for sample in samples} == {80}
    assert document["seed"] == 3
    assert "text" not in document
    *pieces, (name, done) = events_of(service.generate(EVENTS, prompt="once", seed=3, max_characters=80, n=4))
    texts = ["".join(str(data["text"]) for _, data in pieces if data["index"] == index) for index in range(4)]
    assert texts == [sample["text"] for sample in samples]
    assert name == "done"
    assert [one["finish_reason"] for one in json.loads(json.dumps(done))["samples"]] == ["length"] * 4
    whole = service.generate(JSON, prompt="once", seed=3, max_characters=120, n=4).json()["samples"]
    for sample, longer in zip(samples, whole, strict=True):
        on = service.generate(continue_from=sample["state"], max_characters=40).text
        assert sample["text"] + on == longer["text"]


def test_several_texts_take_as_many_places_and_give_them_back(service: GeneratingService) -> None:
    connection = service.connect("model=tiny&max_characters=1000000&n=5", EVENTS)
    service.wait_for_rows(5)
    assert assert_problem(service.generate(JSON, n=4), 429)["code"] == "too_many_streams"
    assert service.generate(JSON, n=3, max_characters=5).status_code == 200
    connection.close()
    service.wait_for_rows(0)


def test_more_texts_than_may_be_open_are_refused_for_good(service: GeneratingService) -> None:
    assert "at most 8" in assert_problem(service.generate(JSON, n=9), 422, "n")["detail"]


def test_plain_text_has_room_for_one_text(service: GeneratingService) -> None:
    assert "plain text" in assert_problem(service.generate(n=2), 422, "n")["detail"]


def test_penalties_and_character_sets_reach_the_text(service: GeneratingService) -> None:
    fields: dict[str, Any] = {"seed": 5, "max_characters": 400, "temperature": 2}
    assert set(service.generate(allowed_characters="abc日€", **fields).text) == set("abc日")
    assert not set(service.generate(forbidden_characters="aeiou", **fields).text) & set("aeiou")
    text = service.generate(seed=5, max_characters=29, temperature=0, presence_penalty=10, frequency_penalty=10).text
    assert len(set(text)) == 29, "no character twice while there are others"
    problem = assert_problem(service.generate(allowed_characters="€"), 422, "allowed_characters")
    assert problem["code"] == "nothing_allowed"
