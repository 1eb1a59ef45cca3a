"""Completions in OpenAI's dialect, spoken by OpenAI's own client, on real generation."""

import asyncio
import json
import math
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import openai
import pytest

from app.generation.stream import NUMBERS_GRANTED
from app.openai import completions
from app.store.trained_models import find_checkpoint
from tests.api.generating import (
    ALPHABET,
    GeneratingService,
    generating_service,
    reset,
    store_model,
    tiny_checkpoint,
    wait_until,
)
from tests.api.openai_clients import client_of, frames, refused

CHARACTERS = "".join(sorted(ALPHABET))
ENDLESS: dict[str, Any] = {"model": "tiny", "max_tokens": 1_000_000}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=8, max_prompt_characters=5000) as made:
        store_model(made.database, "letters", tiny_checkpoint(normalization="letters"))
        yield made


@pytest.fixture
def client(service: GeneratingService) -> Iterator[openai.OpenAI]:
    with client_of(service.http) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left_behind(service: GeneratingService) -> Iterator[None]:
    yield
    service.wait_for_rows(0)


def own_text(service: GeneratingService, **fields: Any) -> str:
    """What `POST /generate` writes."""
    text: str = service.generate("application/json", **fields).json()["text"]
    return text


def ids_of(text: str) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


def test_a_completion_is_what_the_native_call_writes(client: openai.OpenAI, service: GeneratingService) -> None:
    made = client.completions.create(model="tiny", prompt="to be ", max_tokens=40, seed=5, temperature=0.7, top_p=0.9)

    _, checkpoint = find_checkpoint(service.database, "tiny")
    [choice] = made.choices
    assert choice.text == own_text(service, prompt="to be ", max_characters=40, seed=5, temperature=0.7, top_p=0.9)
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert (made.object, made.model, made.system_fingerprint) == ("text_completion", service.model.id, checkpoint.id)
    assert made.usage is not None
    assert made.usage.to_dict() == {"prompt_tokens": 6, "completion_tokens": 40, "total_tokens": 46}
    for reference in (service.model.id, f"{service.model.id}@70", checkpoint.id):
        again = client.completions.create(
            model=reference, prompt="to be ", max_tokens=40, seed=5, temperature=0.7, top_p=0.9
        )
        assert again.choices[0].text == choice.text


def test_the_defaults_are_openais(client: openai.OpenAI, service: GeneratingService) -> None:
    made = client.completions.create(model="tiny", prompt=None)
    assert len(made.choices) == 1
    assert len(made.choices[0].text) == 16
    assert made.usage is not None
    assert made.usage.prompt_tokens == 0
    seed = made.to_dict()["seed"]
    assert made.choices[0].text == own_text(service, max_characters=16, seed=seed)
    assert client.completions.create(model="tiny", prompt=None).to_dict()["seed"] != seed


def test_null_is_the_same_as_leaving_out(client: openai.OpenAI) -> None:
    names = ("max_tokens", "temperature", "top_p", "n", "stop", "echo", "logprobs", "presence_penalty")
    others = ("frequency_penalty", "best_of", "suffix", "logit_bias", "stream_options")
    nothing = dict.fromkeys((*names, *others))
    own = dict.fromkeys(
        ("top_k", "min_p", "repetition_penalty", "allowed_characters", "forbidden_characters", "unknown")
    )
    made = client.completions.create(model="tiny", prompt="a", seed=1, user="me", extra_body=own, **nothing)  # type: ignore[call-overload]
    assert made.choices == client.completions.create(model="tiny", prompt="a", seed=1).choices


def test_our_own_settings_go_into_the_extra_body(client: openai.OpenAI, service: GeneratingService) -> None:
    own: dict[str, Any] = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2, "forbidden_characters": "e"}
    shared: dict[str, Any] = {"prompt": "abc€", "seed": 4, "presence_penalty": 0.5, "frequency_penalty": 0.2}
    made = client.completions.create(model="tiny", max_tokens=50, **shared, extra_body=own | {"unknown": "skip"})
    expected = own_text(service, max_characters=50, unknown="skip", **shared, **own)
    assert made.choices[0].text == expected
    assert made.usage is not None
    assert made.usage.prompt_tokens == 3, "as the network reads it"


def test_a_prompt_may_be_given_as_indices_of_characters(client: openai.OpenAI) -> None:
    by_text = client.completions.create(model="tiny", prompt="once upon", seed=2, echo=True)
    by_ids = client.completions.create(model="tiny", prompt=ids_of("once upon"), seed=2, echo=True)
    assert by_ids.choices == by_text.choices
    assert by_ids.usage == by_text.usage


def test_several_prompts_have_n_choices_each_in_their_order(client: openai.OpenAI, service: GeneratingService) -> None:
    made = client.completions.create(model="tiny", prompt=["a", "bcd", "a"], n=2, seed=6, max_tokens=30, echo=True)

    assert [choice.index for choice in made.choices] == list(range(6))
    assert [choice.text[:1] for choice in made.choices] == list("aabbaa")
    assert len({choice.text for choice in made.choices}) == 6, "each has noise of its own, the same prompt's as well"
    assert made.usage is not None
    assert made.usage.to_dict() == {"prompt_tokens": 5, "completion_tokens": 180, "total_tokens": 185}
    first = service.generate("application/json", prompt="a", n=2, seed=6, max_characters=30).json()
    assert [choice.text for choice in made.choices[:2]] == ["a" + sample["text"] for sample in first["samples"]]
    ids = client.completions.create(
        model="tiny", prompt=[ids_of("a"), ids_of("bcd"), ids_of("a")], n=2, seed=6, max_tokens=30, echo=True
    )
    assert ids.choices == made.choices


def test_the_prompt_is_echoed_as_the_network_reads_it(client: openai.OpenAI) -> None:
    made = client.completions.create(model="letters", prompt="Café,  Noir!", echo=True, max_tokens=0)
    assert (made.choices[0].text, made.choices[0].finish_reason) == ("cafe noir ", "length")
    assert made.usage is not None
    assert made.usage.to_dict() == {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}


def test_a_stop_string_ends_a_text_and_is_not_in_it(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="tiny", prompt="a", seed=1, max_tokens=200).choices[0].text
    stop = plain[100:103]
    for given in (stop, [stop, "€"]):
        [choice] = client.completions.create(model="tiny", prompt="a", seed=1, max_tokens=200, stop=given).choices
        assert (choice.text, choice.finish_reason) == (plain[: plain.index(stop)], "stop")
    [cut] = client.completions.create(model="tiny", prompt="a", seed=1, max_tokens=200, stop=plain[198:] + "€").choices
    assert (cut.text, cut.finish_reason) == (plain, "length"), "what was held back is a part of it"


@pytest.mark.parametrize("number", [0, 1, 5])
def test_logprobs_are_of_each_character_and_of_the_likeliest(client: openai.OpenAI, number: int) -> None:
    made = client.completions.create(
        model="tiny", prompt="to be", echo=True, logprobs=number, max_tokens=20, seed=3, temperature=0.2
    )
    [choice] = made.choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert "".join(told.tokens) == choice.text
    assert told.text_offset == list(range(25))
    assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None), "nothing foretold the first character"
    for token, own, top in zip(told.tokens[1:], told.token_logprobs[1:], told.top_logprobs[1:], strict=True):
        assert top[token] == own
        assert number <= len(top) <= number + 1 or not number
        assert -9999 <= own <= max(top.values()) <= 0
        assert sum(map(math.exp, top.values())) < 1 + 1e-3


def test_logprobs_of_a_prompt_are_its_scores(client: openai.OpenAI, service: GeneratingService) -> None:
    text = "the question is whether " * 40
    scored = service.http.post("/score", json={"model": "tiny", "text": "\n" + text}).json()
    made = client.completions.create(model="tiny", prompt="\n" + text, echo=True, logprobs=0, max_tokens=0)

    assert made.choices[0].logprobs is not None
    [_, *own] = made.choices[0].logprobs.token_logprobs or []
    # The score's network has read a line feed more, which here stands at the beginning.
    assert own[-500:] == pytest.approx(scored["log_probabilities"][-500:], abs=1e-3)
    assert len(own) == len(text)


def test_logprobs_change_no_text(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="tiny", prompt="a", seed=1, max_tokens=300)
    told = client.completions.create(model="tiny", prompt="a", seed=1, max_tokens=300, logprobs=2)
    assert told.choices[0].text == plain.choices[0].text


def test_a_stream_is_the_same_text_piece_by_piece(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": ["a", "bc"], "n": 2, "seed": 8, "max_tokens": 500}
    whole = client.completions.create(**asked, echo=True, logprobs=1)
    chunks = list(
        client.completions.create(**asked, echo=True, logprobs=1, stream=True, stream_options={"include_usage": True})
    )

    texts, tokens, offsets = ([[] for _ in range(4)] for _ in range(3))
    for chunk in chunks[:-1]:
        [choice] = chunk.choices
        texts[choice.index].append(choice.text)
        assert choice.logprobs is not None
        tokens[choice.index] += choice.logprobs.tokens or []
        offsets[choice.index] += choice.logprobs.text_offset or []
        assert chunk.usage is None
    assert ["".join(pieces) for pieces in texts] == [choice.text for choice in whole.choices]
    assert ["".join(pieces) for pieces in tokens] == [choice.text for choice in whole.choices]
    assert offsets == [list(range(len(choice.text))) for choice in whole.choices]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    ends = [(c.index, c.finish_reason) for chunk in chunks[:-1] for c in chunk.choices if c.finish_reason]
    assert sorted(ends) == [(index, "length") for index in range(4)]
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert len(chunks) > 8


def test_the_frames_of_a_stream_are_data_alone(service: GeneratingService) -> None:
    asked = {"model": "tiny", "prompt": "a", "stream": True, "stop": "€", "max_tokens": 100}
    answer = service.http.post("/v1/completions", json=asked)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, done = frames(answer.text)
    assert done == "[DONE]"
    assert all("usage" not in chunk for chunk in chunks), "which was not asked for"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert sum(len(chunk["choices"][0]["text"]) for chunk in chunks) == 100


def test_the_asynchronous_client_reads_a_stream_to_its_end(service: GeneratingService) -> None:
    async def read() -> str:
        own = openai.DefaultAsyncHttpxClient(trust_env=False)
        url = f"{service.http.base_url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", http_client=own) as client:
            stream = await client.completions.create(model="tiny", prompt="a", seed=1, max_tokens=300, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

    assert asyncio.run(read()) == own_text(service, prompt="a", seed=1, max_characters=300)


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"prompt": "£"}, "prompt", "is not known"),
    ({"prompt": ["a", "£"]}, "prompt", "is not known"),
    ({"prompt": [0, 99]}, "prompt", "no character's index"),
    ({"prompt": [[0], [99]]}, "prompt", "no character's index"),
    ({"prompt": [-1]}, "prompt", "must be a text, a list of texts"),
    ({"prompt": []}, "prompt", "must be a text, a list of texts"),
    ({"prompt": ["a", 1]}, "prompt", "must be a text, a list of texts"),
    ({"prompt": {"a": 1}}, "prompt", "must be a text, a list of texts"),
    ({"prompt": "a" * 5001}, "prompt", "at most 5000 characters"),
    ({"prompt": ["a" * 2501] * 2}, "prompt", "at most 5000 characters in all, not 5002"),
    ({"prompt": ["a"] * 9}, "prompt", "must have at most 8"),
    ({"prompt": ["a"] * 3, "n": 3}, "n", "at most 8"),
    ({"best_of": 2}, "best_of", "is not done here"),
    ({"suffix": "end"}, "suffix", "is not done here"),
    ({"logit_bias": {"50": -100}}, "logit_bias", "forbidden_characters"),
    ({"logprobs": 21}, "logprobs", "at most 20"),
    ({"logprobs": 5, "max_tokens": 1_000_000}, "logprobs", "set stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream alone"),
    ({"temperature": 11}, "temperature", "at most 10"),
    ({"max_tokens": -1}, "max_tokens", "at least 0"),
    ({"n": 0}, "n", "at least 1"),
    ({"stop": ""}, "stop", "must not be empty"),
    ({"stop": ["a", ""]}, "stop", "stop.1: must not be empty"),
    ({"extra_body": {"stop": 3}}, "stop", "must be a text, or a list of texts"),
    ({"extra_body": {"echo": "yes"}}, "echo", "must be true or false"),
    ({"seed": -1}, "seed", "at least 0"),
    ({"extra_body": {"allowed_characters": "€"}}, "allowed_characters", "none may be written"),
    ({"extra_body": {"max_characters": 5}}, "max_characters", "unknown"),
    ({"extra_body": {"topk": 5}}, "topk", "did you mean top_k?"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("wish", "param", "says"), REFUSED)
def test_what_cannot_be_is_refused_before_the_first_byte(
    client: openai.OpenAI, wish: dict[str, Any], param: str | None, says: str, stream: bool
) -> None:
    if stream and ({"stream_options", "logprobs"} & wish.keys() and wish.get("logprobs") != 21):
        pytest.skip("which is right in a stream")
    with refused(400, param=param, says=says):
        client.completions.create(**{"model": "tiny", "prompt": "a", "stream": stream} | wish)


@pytest.mark.parametrize("model", ["nobody", "tiny@71", "a/b"])
def test_a_model_that_is_not_there_is_not_found(client: openai.OpenAI, model: str) -> None:
    with refused(404, param="model", says="no "):
        client.completions.create(model=model, prompt="a")


def test_a_size_is_told_from_a_model(client: openai.OpenAI) -> None:
    with refused(404, param="model", code="model_not_found", says="a size of network"):
        client.completions.create(model="large", prompt="a")


def test_all_choices_have_their_places_or_none_has(client: openai.OpenAI, service: GeneratingService) -> None:
    with client.completions.create(**ENDLESS, prompt=["a", "b"], n=3, stream=True) as stream:
        next(iter(stream))
        service.wait_for_rows(6)
        with refused(429, code="too_many_streams") as raised:
            client.completions.create(model="tiny", prompt=["a", "b", "c"])
        assert int(raised.value.response.headers["retry-after"]) > 0
        assert service.generation.open_streams == 6
        assert client.completions.create(model="tiny", prompt=["a", "b"]).choices


def test_a_crowd_is_refused_in_the_same_form(client: openai.OpenAI, service: GeneratingService) -> None:
    with client.completions.create(**ENDLESS, prompt="a", n=8, stream=True):
        service.wait_for_rows(8)
        with refused(429, code="too_many_streams"):
            client.completions.create(model="tiny", prompt="a")
        assert client.models.list().data, "which needs no place"


def send(service: GeneratingService, body: dict[str, Any]) -> socket.socket:
    """A connection that has asked for a completion and read nothing yet."""
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    data = json.dumps(body).encode()
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + data)
    return connection


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("wish", [{"stream": True}, {}, {"stream": True, "logprobs": 2, "echo": True}])
def test_a_client_that_leaves_frees_its_rows(service: GeneratingService, wish: dict[str, Any], leave: Any) -> None:
    connection = send(service, ENDLESS | {"prompt": ["to be " * 500, "a"], "n": 2} | wish)
    service.wait_for_rows(4)
    leave(connection)
    service.wait_for_rows(0)


def test_a_client_that_reads_nothing_of_its_logprobs_costs_a_bounded_number_of_them(
    service: GeneratingService,
) -> None:
    wish = {"prompt": "to be " * 800, "echo": True, "logprobs": 20, "stream": True}
    with send(service, ENDLESS | wish):
        service.wait_for_rows(1)
        [stream] = service.generation._streams.values()
        held: list[int] = []
        wait_until(lambda: _stands_still(service, held))
        assert len(stream._scores) <= NUMBERS_GRANTED // 21


def _stands_still(service: GeneratingService, seen: list[int]) -> bool:
    """Whether the process wrote nothing since the last look."""
    seen.append(service.count("characters"))
    return len(seen) > 20 and seen[-1] == seen[-20]


def test_a_text_that_breaks_off_says_so_in_the_stream(client: openai.OpenAI, service: GeneratingService) -> None:
    def read_on() -> None:
        for _ in stream:
            pass

    with client.completions.create(**ENDLESS, prompt="a", stream=True) as stream:
        next(iter(stream))
        service.loop.call_soon_threadsafe(service.generation.end_streams, "the test ends it")
        with pytest.raises(openai.APIError, match="the test ends it") as raised:
            read_on()
    assert not isinstance(raised.value, openai.APIStatusError), "its status was 200"
    assert (raised.value.code, raised.value.type) == ("generation_failed", "server_error")


def test_a_whole_text_that_breaks_off_is_no_answer(service: GeneratingService) -> None:
    with send(service, ENDLESS | {"prompt": "a"}) as connection:
        service.wait_for_rows(1)
        service.loop.call_soon_threadsafe(service.generation.end_streams, "the test ends it")
        answer = HTTPResponse(connection)
        answer.begin()
        error = json.loads(answer.read())["error"]
    assert (answer.status, error["code"]) == (503, "generation_failed")
    assert "the test ends it" in error["message"]


def test_the_limit_of_numbers_counts_prompts_and_choices(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "MOST_NUMBERS", 2 * 2 * (3 + 4))
    asked: dict[str, Any] = {"model": "tiny", "prompt": "abc", "echo": True, "n": 2, "logprobs": 1}
    assert client.completions.create(**asked, max_tokens=4).choices
    with refused(400, param="logprobs", says="would be 32 numbers"):
        client.completions.create(**asked, max_tokens=5)
