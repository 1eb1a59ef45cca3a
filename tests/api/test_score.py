"""`/score` on a real service: one JSON document, however long; what is refused; clients that are slow or leave."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from starlette.types import Message

from app.generation.stream import GRANTED_OF_SCORE, GenerationRefused, Stream, StreamFailed
from app.routes import generation_responses, score
from app.store.trained_models import find_checkpoint
from models.checkpoint import decode_checkpoint, encode_checkpoint
from tests.api.generating import (
    DEADLINE_SECONDS,
    GeneratingService,
    generating_service,
    reset,
    rest_of,
    store_model,
    tiny_checkpoint,
    wait_until,
)
from tests.api.service import assert_problem
from tests.api.test_generate_fallback import flip, train

LIMIT = 300_000
LONG = "to be or not to be\n" * (LIMIT // 19)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=4, max_score_characters=LIMIT) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left_behind(service: GeneratingService) -> Iterator[None]:
    yield
    service.wait_for_rows(0)


def scored(service: GeneratingService, text: str = "to be", **fields: Any) -> httpx.Response:
    return service.http.post("/score", json={"model": "tiny", "text": text} | fields)


def connect(
    service: GeneratingService, text: str = LONG, receive_bytes: int | None = None, **fields: Any
) -> socket.socket:
    """A raw connection that has asked for a score and read nothing yet."""
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(DEADLINE_SECONDS)
    connection.connect(("127.0.0.1", service.port))
    body = json.dumps({"model": "tiny", "text": text} | fields).encode()
    head = "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def broken_checkpoint(character: str) -> bytes:
    """Of a network whose answer is no number once it has read this character."""
    network, info = decode_checkpoint(tiny_checkpoint())
    with torch.no_grad():
        network.output.weight.fill_(3e38)
        network.embedding.weight.zero_()
        network.embedding.weight[info.vocabulary.encode(character)[0]] = 3e38
    return encode_checkpoint(network, info)


def test_every_character_has_a_score_and_the_sums_are_those_of_the_scores(service: GeneratingService) -> None:
    answer = scored(service, "to be, or not to be", unknown="skip")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == [
        "model", "checkpoint_step", "log_probabilities", "characters", "loss", "bits_per_character", "perplexity",
        "characters_per_second",
    ]  # fmt: skip
    assert (document["model"], document["checkpoint_step"]) == (service.model.id, 70)
    assert document["characters"] == len(document["log_probabilities"]) == 18
    assert max(document["log_probabilities"]) < 0
    assert document["loss"] == pytest.approx(-sum(document["log_probabilities"]) / 18, abs=1e-5)


def test_what_a_model_writes_by_itself_at_temperature_0_is_the_first_alternative_everywhere(
    service: GeneratingService,
) -> None:
    """So the first character is scored after what an empty prompt is."""
    text = service.generate(temperature=0, max_characters=60).text
    document = scored(service, text, top=3).json()
    assert "".join(likeliest[0]["character"] for likeliest in document["top"]) == text
    for position, score_of_text in zip(document["top"], document["log_probabilities"], strict=True):
        assert len(position) == 3
        assert position[0]["log_probability"] == score_of_text
        assert position == sorted(position, key=lambda one: -one["log_probability"])


def test_a_text_and_its_alternatives_score_the_same_alone_and_together(service: GeneratingService) -> None:
    text = LONG[:5000]
    alone, together = scored(service, text).json(), scored(service, text, top=20).json()
    assert alone["log_probabilities"] == together["log_probabilities"]
    assert [len(position) for position in together["top"]] == [20] * 5000
    assert alone["loss"] == together["loss"]


def test_a_long_text_is_one_document_that_is_sent_piece_by_piece(service: GeneratingService) -> None:
    with service.http.stream("POST", "/score", json={"model": "tiny", "text": LONG}) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["x-accel-buffering"] == "no"
        pieces = list(answer.iter_raw())
    assert len(pieces) > 10
    document = json.loads(b"".join(pieces))
    assert document["characters"] == len(document["log_probabilities"]) == len(LONG)


def test_a_model_is_named_by_id_by_name_or_with_a_step(service: GeneratingService) -> None:
    losses = {scored(service, model=key).json()["loss"] for key in ("tiny", service.model.id, "tiny@70")}
    assert len(losses) == 1


def test_a_text_is_normalized_as_the_models_texts_were(service: GeneratingService) -> None:
    letters = tiny_checkpoint(characters=" abcdefghijklmnopqrstuvwxyz", normalization="letters")
    store_model(service.database, "letters", letters)
    as_written, normalized = (
        scored(service, text, model="letters").json() for text in ("Où est\n\nl'été?", "ou est l ete ")
    )
    assert as_written["characters"] == normalized["characters"] == 13
    assert as_written["log_probabilities"] == normalized["log_probabilities"]


def test_a_character_that_the_model_does_not_know_is_named_with_its_place(service: GeneratingService) -> None:
    for before in (2, 50_000):
        problem = assert_problem(scored(service, "a" * before + "€b"), 422, "text")
        assert problem["code"] == "unknown_character"
        assert (problem["character"], problem["position"]) == ("€", before)
    skipped = scored(service, "a€b\r", unknown="skip").json()
    assert skipped["log_probabilities"] == scored(service, "ab").json()["log_probabilities"]
    assert "text" not in skipped


def test_beside_alternatives_stand_the_characters_that_were_scored(service: GeneratingService) -> None:
    text = 'a€"b' + "to be or not to be " * 300 + "\\"
    document = scored(service, text, unknown="skip", top=1).json()
    known = set(decode_checkpoint(tiny_checkpoint())[1].vocabulary.characters)
    assert "".join(document["text"]) == "".join(character for character in text if character in known)
    assert len(document["text"]) == len(document["top"]) == len(document["log_probabilities"]) > 5_000


def test_a_text_without_a_character_is_refused(service: GeneratingService) -> None:
    assert_problem(scored(service, ""), 422, "text")
    assert assert_problem(scored(service, "€€", unknown="skip"), 422, "text")["code"] == "empty_text"


def test_a_text_over_the_limit_is_refused_and_one_at_the_limit_is_not(service: GeneratingService) -> None:
    assert scored(service, "a" * LIMIT).json()["characters"] == LIMIT
    problem = assert_problem(scored(service, "a" * (LIMIT + 1)), 422, "text")
    assert problem["code"] == "text_too_long"
    assert str(LIMIT) in problem["detail"]
    assert_problem(scored(service, "😀" * LIMIT), 422, "text")  # 3.6 MB as JSON escapes it
    assert_problem(scored(service, "a" * 5_000_000), 413)


@pytest.mark.parametrize(
    ("field", "value"), [("top", -1), ("top", 21), ("top", 1.5), ("unknown", "ignore"), ("txet", "a"), ("text", 5)]
)
def test_a_field_out_of_range_is_refused_by_name(service: GeneratingService, field: str, value: Any) -> None:
    problem = assert_problem(scored(service, **{field: value}), 422)
    assert problem["errors"][0]["field"] == field


def test_half_a_surrogate_pair_is_refused(service: GeneratingService) -> None:
    body = b'{"model": "tiny", "text": "\\ud83d"}'
    answer = service.http.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert "surrogate" in assert_problem(answer, 422, "text")["detail"]


@pytest.mark.parametrize("model", ["nobody", "tiny@71"])
def test_an_unknown_model_or_step_is_not_found(service: GeneratingService, model: str) -> None:
    assert_problem(scored(service, model=model), 404)


def test_a_file_that_is_no_model_is_told_as_what_it_is(service: GeneratingService) -> None:
    store_model(service.database, "no-model", b"not a safetensors file")
    assert assert_problem(scored(service, model="no-model"), 422)["code"] == "invalid_checkpoint"


def test_a_damaged_checkpoint_is_passed_over_for_the_next_best(service: GeneratingService) -> None:
    train(service, "poet", 1.5, 1.1, 1.3)
    flip(service, find_checkpoint(service.database, "poet")[1])
    for _ in range(2):  # found damaged, then known to be
        assert scored(service, model="poet").json()["checkpoint_step"] == 3
    assert assert_problem(scored(service, model="poet@2"), 500)["code"] == "corrupted"


def test_a_matter_of_the_moment_answers_503_and_when_to_come_back(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(stream: Stream, *_: Any) -> None:
        stream.evict()
        raise GenerationRefused("load_failed", "not now")

    monkeypatch.setattr(service.generation, "score", refuse)
    answer = scored(service)
    assert assert_problem(answer, 503)["code"] == "load_failed"
    assert int(answer.headers["retry-after"]) > 0


def test_a_score_holds_a_place_among_the_streams(service: GeneratingService) -> None:
    readers = [connect(service, receive_bytes=4096) for _ in range(4)]
    service.wait_for_rows(4)
    for refused in (scored(service), service.generate(max_characters=5)):
        assert assert_problem(refused, 429)["code"] == "too_many_streams"
    for reader in readers:
        reader.close()
    service.wait_for_rows(0)
    assert scored(service).status_code == 200


def test_a_client_that_reads_slowly_holds_back_itself_alone(service: GeneratingService) -> None:
    slow = connect(service, receive_bytes=4096, top=20)
    service.wait_for_rows(1)
    assert scored(service, LONG[:50_000]).json()["characters"] == 50_000
    assert len(service.generate(max_characters=300).text) == 300
    service.wait_for_rows(1)
    slow.close()


def test_no_more_waits_for_a_reader_than_was_granted_and_a_piece(service: GeneratingService) -> None:
    async def first_and_second() -> tuple[str, str]:
        _, checkpoint = find_checkpoint(service.database, "tiny")
        streams = [service.generation.hold_places() for _ in range(2)]
        for stream, text in zip(streams, (LONG, "to be " * 10_000), strict=True):
            await service.generation.score(stream, checkpoint.blob_id, text, {"unknown": "refuse", "top": 0})
        async for _ in streams[1]:  # meanwhile the first one fills what it was granted
            pass
        (_, one), (_, other) = await anext(streams[0]), await anext(streams[0])
        for stream in streams:
            stream.evict()
        return one, other

    first, second = asyncio.run_coroutine_threadsafe(first_and_second(), service.loop).result(DEADLINE_SECONDS)
    assert GRANTED_OF_SCORE <= len(first) < GRANTED_OF_SCORE + 120_000
    assert second.startswith(","), "it goes on when it is read"


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("top", [0, 20])
def test_a_client_that_leaves_ends_the_work(service: GeneratingService, leave: str, top: int) -> None:
    connection = connect(service, top=top)
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    if leave == "reset":
        reset(connection)
    else:
        connection.close()
    service.wait_for_rows(0)


def test_a_client_that_leaves_before_it_is_admitted_ends_the_work(service: GeneratingService) -> None:
    pid = service.generation.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        connection = connect(service)
        wait_until(lambda: service.generation.open_streams == 1)
        connection.close()
        wait_until(lambda: service.generation.open_streams == 0)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_answer_that_is_not_finite_at_once_is_told_by_a_status(service: GeneratingService) -> None:
    store_model(service.database, "broken", broken_checkpoint("q"))
    assert scored(service, "aaa", model="broken").status_code == 200
    problem = assert_problem(scored(service, "aqa", model="broken"), 503)
    assert problem["code"] == "generation_failed"
    assert "not finite" in problem["detail"]


def test_one_that_is_not_finite_later_breaks_the_answer_off(service: GeneratingService) -> None:
    store_model(service.database, "broken", broken_checkpoint("q"))
    answer = rest_of(connect(service, "a" * 200_000 + "qa", model="broken"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")  # no last chunk: nobody takes it for a whole document
    with pytest.raises(httpx.RemoteProtocolError):
        scored(service, "a" * 200_000 + "qa", model="broken")


def test_the_end_of_the_process_breaks_the_answer_off(service: GeneratingService) -> None:
    connection = connect(service, receive_bytes=4096, top=20)
    received = connection.recv(1000)
    pid = service.generation.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    received += rest_of(connection)
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")
    assert scored(service).status_code == 200, "by the next process"


def test_the_command_prints_the_sums_of_a_file(service: GeneratingService, tmp_path: Path) -> None:
    def told(data: bytes, *options: str) -> tuple[int, str]:
        file, url = tmp_path / "text.txt", f"http://127.0.0.1:{service.port}"
        file.write_bytes(data)
        command = [sys.executable, "-m", "app.cli", "score", "tiny", str(file), "--url", url, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    document = scored(service, "to be\n" * 200).json()
    code, output = told(b"\xef\xbb\xbf" + b"to be\n" * 200)
    assert code == 0
    assert f"{document['bits_per_character']:.4f} bits per character" in output
    assert "(1,200 characters, " in output
    code, output = told("to be €".encode())
    assert code == 1
    assert "EURO SIGN) at position 6" in output
    assert told("to be €".encode(), "--skip-unknown")[0] == 0
    assert told(b"to be \xff") == (1, f"charsmith: {tmp_path}/text.txt is not UTF-8: byte 0xff at byte 6\n")


class Parked:
    """A stream that is silent for long, then tells the rest."""

    reader_seconds = 30.0

    def __init__(self, silent_until: asyncio.Event, *pieces: str) -> None:
        self._silent_until = silent_until
        self._pieces = list(pieces)
        self.evicted = False

    def __aiter__(self) -> "Parked":
        return self

    async def __anext__(self) -> tuple[int, str]:
        await self._silent_until.wait()
        if not self._pieces:
            raise StopAsyncIteration
        if self._pieces[0] == "fail":
            raise StreamFailed("of a test")
        return 0, self._pieces.pop(0)

    def evict(self) -> None:
        self.evicted = True


def sent_by(response_of: Any) -> list[bytes]:
    """The chunks of a response to a stream that speaks after the third of them."""

    async def answer() -> list[bytes]:
        speak, chunks = asyncio.Event(), list[bytes]()

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and message["body"]:
                chunks.append(message["body"])
                if len(chunks) == 3:
                    speak.set()

        async with asyncio.timeout(DEADLINE_SECONDS):
            await response_of(speak)({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
        return chunks

    return asyncio.run(answer())


def test_silence_is_filled_with_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (generation_responses, score):
        monkeypatch.setattr(module, "SILENT_SECONDS", 0.01)
    chunks = sent_by(lambda speak: score.ScoreResponse(Parked(speak, '"a":[1', ",2]}"), '{"model":"m",'))  # type: ignore[arg-type]
    assert chunks[1:3] == [b" ", b" "]
    assert json.loads(b"".join(chunks)) == {"model": "m", "a": [1, 2]}


def test_the_first_piece_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "SILENT_SECONDS", 0.01)
    never = Parked(asyncio.Event())
    assert asyncio.run(score._first_piece(never)) == ""  # type: ignore[arg-type]
