"""The generation process: loads models, steps their engines, says what their rows write.

Started by the service as `python -m app.generation.process`; with shelf and outbox, the only part of `app` that imports
torch. Knows no HTTP. One thread does everything but reading model files: it looks for commands between two steps, so an
evicted row never writes another character. Invariant: a row never has more text under way than was granted to it, so a
client that reads slowly costs no memory, and writing to the socket waits only for the service's own event loop.
"""

import base64
import contextlib
import dataclasses
import os
import selectors
import socket
from collections.abc import Iterator

import torch

from app import logs
from app.generation.outbox import Outbox
from app.generation.protocol import Decoder, Message
from app.generation.scoring import Scoring
from app.generation.shelf import Decoded, Refused, Shelf
from app.generation.turns import take_turn
from app.processes import end_with_parent, parent_socket
from app.store.opening import open_database
from models.config import Precision
from models.engine import Engine
from models.row_state import RowState
from models.rows import NothingAllowed, RowOutput, RowRequest
from models.sampling import SamplingConfig
from models.vocabulary import UnknownCharacter, UnknownId

RECEIVE_BYTES = 256 * 1024
SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingConfig))


class Process:
    """Everything that the generation process holds."""

    def __init__(self, connection: socket.socket, database_url: str, device: str, precision: Precision) -> None:
        woken, self._waker = socket.socketpair()
        self._connection = connection
        self._decoder = Decoder()
        self._outbox = Outbox(connection)
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ, self._receive)
        self._selector.register(woken, selectors.EVENT_READ, lambda: bool(woken.recv(4096)))
        database = open_database(database_url)
        self._shelf = Shelf(database, device, lambda: self._waker.sendall(b"\0"), precision=precision)
        self._scoring = Scoring(self._shelf, self._outbox)
        self._waiting: dict[str, list[Message]] = {}  # commands, by the blob that is being read
        self._home: dict[int, Engine] = {}
        self._fresh: set[int] = set()  # rows that have written nothing yet
        self._characters = 0

    def run(self) -> None:
        """Work until the service closes the connection."""
        self._outbox.say({"is": "ready"})
        while self._hear():
            for blob_id, result in self._shelf.loaded():
                self._answer_waiting(blob_id, result)
            for output in take_turn(list(self._shelf.engines), self._scoring):
                self._report(output)
            self._outbox.flush_if_due(idle=not self._busy())

    def _busy(self) -> bool:
        return self._scoring.busy or any(True for _ in self._shelf.engines)

    def _hear(self) -> bool:
        """Take in what there is; wait for it if there is nothing else to do. False: the service is gone."""
        ready = self._selector.select(0 if self._busy() else None)
        return all(key.data() for key, _ in ready)

    def _receive(self) -> bool:
        data = self._connection.recv(RECEIVE_BYTES)
        for message in self._decoder.feed(data):
            self._obey(message)
        return bool(data)

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "admit" | "score" if (engine := self._shelf.get(message["blob"])) is not None:
                self._begin(engine, message)
            case "admit" | "score" | "inspect":
                self._wait_for(message)
            case "feed":
                self._scoring.feed(message)
            case "grant":
                self._scoring.grant(message["row"], message["characters"])
                if home := self._home.get(message["row"]):
                    home.grant(message["row"], message["characters"])
            case "evict":
                self._evict(message["row"])
            case "count":
                self._outbox.say({"is": "answer", "call": message["call"], "value": self._counts()})

    def _wait_for(self, message: Message) -> None:
        waiting = self._waiting.setdefault(message["blob"], [])
        if not waiting:
            self._shelf.load(message["blob"])
        waiting.append(message)

    def _answer_waiting(self, blob_id: str, result: Decoded | Refused) -> None:
        for message in self._waiting.pop(blob_id, []):
            if isinstance(result, Refused):
                self._refuse(message, result)
            elif message["do"] == "inspect":
                self._outbox.say({"is": "answer", "call": message["call"], "value": _described(result)})
            else:
                self._admit_to(blob_id, result, message)

    def _admit_to(self, blob_id: str, decoded: Decoded, message: Message) -> None:
        try:
            engine = self._shelf.get(blob_id)
            if engine is None:
                engine = self._shelf.keep(blob_id, decoded)
        except Refused as refused:
            self._refuse(message, refused)
        else:
            self._begin(engine, message)

    def _begin(self, engine: Engine, message: Message) -> None:
        if message["do"] == "score":
            self._scoring.begin(message)
        else:
            self._admit(engine, message)

    def _admit(self, engine: Engine, message: Message) -> None:
        row_ids: list[int] = message["rows"]
        characters: list[int] = []
        try:
            for rows, request in _shares(row_ids, message["request"]):
                characters.append(engine.admit(rows, request, message["characters"]))
        except ValueError as error:  # of one request: the others' texts go on
            for row_id in row_ids:
                engine.evict(row_id)
            self._refuse(message, _refused(error))
            return
        self._home |= dict.fromkeys(row_ids, engine)
        self._fresh.update(row_ids)
        self._outbox.say({"is": "admitted", "rows": row_ids, "prompt_characters": characters})

    def _refuse(self, message: Message, refused: Refused) -> None:
        asked = "rows" if "rows" in message else "call"
        answer = {"is": "refused", asked: message[asked], "code": refused.code, "detail": str(refused)}
        self._outbox.say(answer | refused.fields)

    def _report(self, output: RowOutput) -> None:
        row_id = output.row_id
        self._characters += len(output.text)
        self._outbox.write(output, first=row_id in self._fresh)
        if output.failed:
            self._outbox.say({"is": "failed", "row": row_id, "detail": output.failed})
        self._fresh.discard(row_id)
        if output.finished or output.failed:
            del self._home[row_id]

    def _evict(self, row_id: int) -> None:
        if engine := self._home.pop(row_id, None):
            engine.evict(row_id)
        self._scoring.evict(row_id)
        self._fresh.discard(row_id)
        self._outbox.forget(row_id)
        for waiting in self._waiting.values():  # all rows of a request go together
            waiting[:] = [message for message in waiting if row_id not in message.get("rows", ())]

    def _counts(self) -> dict[str, int]:
        return {
            "rows": len(self._home) + len(self._scoring),
            "models": len(self._shelf),
            "loads": self._shelf.loads,
            "model_bytes": self._shelf.bytes,
            "characters": self._characters,
        }


def _shares(row_ids: list[int], fields: Message) -> Iterator[tuple[list[int], RowRequest]]:
    """The rows of each prompt, and what they shall write."""
    prompts = fields.get("prompts") or [fields["prompt"]]
    share = len(row_ids) // len(prompts)
    for number, prompt in enumerate(prompts):
        first = number * share
        yield row_ids[first : first + share], _row_request(fields, prompt, first)


def _row_request(fields: Message, prompt: str | list[int], first_sample: int) -> RowRequest:
    start = fields["start"]
    return RowRequest(
        prompt if isinstance(prompt, str) else "",
        fields["max_characters"],
        fields["seed"],
        SamplingConfig(**{name: fields[name] for name in SAMPLING}),
        tuple(fields["stop"]),
        skip_unknown=fields["unknown"] == "skip",
        allowed=fields["allowed_characters"],
        forbidden=fields["forbidden_characters"],
        start=None if start is None else RowState.from_bytes(base64.b64decode(start)),
        keep_state=fields["keep_state"],
        prompt_ids=None if isinstance(prompt, str) else tuple(prompt),
        first_sample=first_sample,
        echo=fields.get("echo", False),
        alternatives=fields.get("alternatives"),
    )


def _refused(error: ValueError) -> Refused:
    """Why rows were not admitted."""
    match error:
        case UnknownCharacter():
            return Refused("unknown_character", str(error), character=error.character, position=error.position)
        case UnknownId():
            return Refused("unknown_id", str(error))
        case NothingAllowed():
            return Refused("nothing_allowed", str(error))
    return Refused("invalid_request", str(error))


def _described(decoded: Decoded) -> Message:
    info = decoded.info
    return {
        "config": info.config.as_dict(),
        "vocabulary_size": len(info.vocabulary),
        "parameters": decoded.parameters,
        "step": info.step,
        "train_loss": info.train_loss,
        "val_loss": info.val_loss,
    }


def _first_message(connection: socket.socket) -> Message | None:
    """`begin`, read byte by byte: what follows is the loop's. None if the service is gone already."""
    decoder = Decoder()
    while data := connection.recv(1):
        for message in decoder.feed(data):
            return message
    return None


def _resolved(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _set_up_torch() -> None:
    torch.set_num_threads(1)  # products of few rows: a second thread only takes the trainer's
    torch.set_flush_denormal(True)


def main() -> None:
    """Run as a child of the service."""
    end_with_parent()
    connection = parent_socket()
    logs.set_up_as_told("generation")
    _set_up_torch()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the service went away while we told it something
        if begin := _first_message(connection):
            Process(connection, begin["database_url"], _resolved(begin["device"]), begin["precision"]).run()
    os._exit(0)  # not waiting for the loading thread


if __name__ == "__main__":
    main()
