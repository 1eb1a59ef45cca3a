"""One client that asks for one thing at a time, in a process of its own, and tells how long it waited each time.

Blocking sockets and nothing else at work, so that no other client's bytes are read between an answer and its clock.
"""

import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import child
from benchmarks.http_answer import Answer, generate_request

TIMEOUT_SECONDS = 60.0
PING = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PING_SECONDS = 0.01
GAP_SECONDS = (0.005, 0.03)
"""Between an answer and the next request, at random: not in step with anything that the service does."""
RETRY_SECONDS = 0.02


class NotServedError(Exception):
    """The answer was no text."""


def first(port: int, fields: dict[str, Any], times: int, prompt_characters: int, alphabet: str, seed: int) -> Any:
    """Seconds from the beginning of each connection to the first byte of its text.

    Every request has a prompt of its own at random; the same seed makes the same ones again.
    """
    draw = random.Random(seed)
    taken = []
    for number in range(times):
        prompt = "".join(draw.choices(alphabet, k=prompt_characters))
        request = generate_request(fields | {"prompt": prompt})
        if number:
            time.sleep(draw.uniform(*GAP_SECONDS))
        taken.append(_first_byte(port, request))
    return taken


def served(port: int, fields: dict[str, Any], seconds: float) -> Any:
    """Seconds until a text begins, asked for again and again; None: not within `seconds`."""
    began, request = time.perf_counter(), generate_request(fields)
    while time.perf_counter() - began < seconds:
        try:
            _first_byte(port, request)
        except (NotServedError, OSError):
            time.sleep(RETRY_SECONDS)
        else:
            return time.perf_counter() - began
    return None


def ping(port: int, seconds: float) -> Any:
    """Seconds that `/healthz` took, a hundred times a second over one connection.

    A ping that could not be sent in time, because the one before had no answer yet, counts from when it was due: else
    the longest waits would be asked about least.
    """
    taken = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            late = time.perf_counter() > due
            if not late:
                time.sleep(due - time.perf_counter())
            began = due if late else time.perf_counter()
            connection.sendall(PING)
            answer = Answer()
            while not answer.complete:
                answer.feed(_received(connection))
            taken.append(time.perf_counter() - began)
            due += PING_SECONDS
    return taken


def _first_byte(port: int, request: bytes) -> float:
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        answer = Answer()
        while not answer.feed(_received(connection)):
            pass
        seconds = time.perf_counter() - began
        if answer.status != 200:
            raise NotServedError(answer.status)
        while not answer.complete:  # so that its place is free again before the next one asks
            answer.feed(_received(connection))
    return seconds


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(64 * 1024)
    if not data:
        raise ConnectionResetError("the answer broke off")
    return data


QUESTIONS: dict[str, Callable[..., Any]] = {"first": first, "served": served, "ping": ping}


def answers() -> Iterator[Any]:
    for question in child.questions():
        yield QUESTIONS[question.pop("do")](**question)


if __name__ == "__main__":
    child.answer(answers())
