"""The models that are loaded: an engine each, the least recently used given up when they take too much memory.

Knows the store and the engine, not what rows do. Files are read and decoded in a thread of their own, so that rows of
other models go on meanwhile; all methods belong to the thread that owns the shelf. Invariants: a model with rows, or
one that is lent, is never given up, so a stream ends with the weights that it began with, also when its model was
deleted or replaced; a model that would not fit beside those is refused, so together they never take more than the
budget.
"""

import logging
import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from app.store.blobs import blob_bytes, read_blob
from app.store.database import Database
from app.store.errors import Corrupted, NotFound
from models.checkpoint import decode_checkpoint
from models.checkpoint_header import CheckpointInfo, InvalidCheckpoint
from models.config import Precision
from models.engine import Engine
from models.padded_stepper import PaddedStepper
from models.stepper import Stepper, compile_first, stepper_bytes, stepper_of

log = logging.getLogger(__name__)

BUDGET_BYTES = 1024 * 1024 * 1024
"""About 400 models of the default size. One model is kept however large it is."""


class Refused(Exception):
    """What was asked cannot be done; `code` is for programs, the message for people."""

    def __init__(self, code: str, detail: str, **fields: str | int) -> None:
        super().__init__(detail)
        self.code = code
        self.fields = fields


class Decoded(NamedTuple):
    """A model file that was read, its network ready to write."""

    stepper: Stepper | PaddedStepper
    info: CheckpointInfo
    parameters: int


class Shelf:
    """Engines by the id of the blob that their model was read from. `wake` is called from the loading thread."""

    def __init__(
        self,
        database: Database,
        device: str,
        wake: Callable[[], None],
        budget: int = BUDGET_BYTES,
        precision: Precision = "auto",
    ) -> None:
        self._database = database
        self._device = device
        self._wake = wake
        self._budget = budget
        self._precision = precision
        self.loads = 0
        """How often a model was taken in."""
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._decoded: dict[str, Decoded] = {}
        self._lent: Counter[str] = Counter()
        self._wanted: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[tuple[str, Decoded | Refused]] = queue.SimpleQueue()
        threading.Thread(target=self._load_forever, name="load-models", daemon=True).start()

    def __len__(self) -> int:
        return len(self._engines)

    @property
    def bytes(self) -> int:
        """Memory of all weights."""
        return sum(decoded.stepper.bytes for decoded in self._decoded.values())

    @property
    def engines(self) -> Iterator[Engine]:
        """Those with rows that have something to do."""
        return (engine for engine in self._engines.values() if engine.busy)

    def get(self, blob_id: str) -> Engine | None:
        """The engine of a model that is loaded, from now on the most recently used."""
        if blob_id in self._engines:
            self._engines.move_to_end(blob_id)
        return self._engines.get(blob_id)

    def load(self, blob_id: str) -> None:
        """Begin to read a model file; `loaded` will tell how it went."""
        self._wanted.put((blob_id, self._in_use()))

    def loaded(self) -> Iterator[tuple[str, Decoded | Refused]]:
        """The files that have been read since."""
        while not self._read.empty():
            yield self._read.get()

    def keep(self, blob_id: str, decoded: Decoded) -> Engine:
        """The engine of a model that was read; older ones make room for it. Raises Refused where they cannot."""
        self.loads += 1
        self._check_room(decoded.stepper.bytes, self._in_use())  # again: rows may have begun since it was asked for
        engine = Engine(decoded.stepper, decoded.info)
        self._engines[blob_id] = engine
        self._decoded[blob_id] = decoded
        for old in [key for key in self._engines if not self._is_used(key) and key != blob_id]:
            if self.bytes <= self._budget:
                break
            del self._engines[old], self._decoded[old]
        return engine

    def lend(self, blob_id: str) -> Decoded:
        """A model that is loaded, which counts as having a row until it is taken back."""
        self._lent[blob_id] += 1
        return self._decoded[blob_id]

    def take_back(self, blob_id: str) -> None:
        """Once for each time that it was lent."""
        self._lent -= Counter([blob_id])  # keeps no zeros

    def _in_use(self) -> int:
        """Bytes of the models that cannot be given up."""
        return sum(decoded.stepper.bytes for key, decoded in self._decoded.items() if self._is_used(key))

    def _is_used(self, blob_id: str) -> bool:
        return bool(len(self._engines[blob_id]) or self._lent[blob_id])

    def _check_room(self, size: int, in_use: int) -> None:
        if in_use and in_use + size > self._budget:
            raise Refused("model_too_large", "there is no room for this model beside those that are writing now")

    def _load_forever(self) -> None:
        if self._device == "cpu":
            try:
                compile_first(self._precision)
            except Exception:  # what is wrong meets the first model as well, which then tells its reader
                log.exception("the engine could not be compiled beforehand")
        while True:
            blob_id, in_use = self._wanted.get()
            self._read.put((blob_id, self._decode(blob_id, in_use)))
            self._wake()

    def _decode(self, blob_id: str, in_use: int) -> Decoded | Refused:
        try:
            self._check_room(blob_bytes(self._database, blob_id), in_use)
            network, info = decode_checkpoint(b"".join(read_blob(self._database, blob_id)))
            self._check_room(stepper_bytes(network, self._precision), in_use)  # before they are taken
            parameters = sum(p.numel() for p in network.parameters())
            return Decoded(stepper_of(network.to(self._device), self._precision), info, parameters)
        except Refused as refused:
            return refused
        except NotFound:
            return Refused("checkpoint_gone", "the checkpoint was deleted a moment ago")
        except Corrupted as error:
            return Refused("checkpoint_corrupted", str(error))
        except InvalidCheckpoint as error:
            return Refused("invalid_checkpoint", str(error))
        except Exception as error:  # whatever it is: without this thread no model would be loaded again
            if _lacks_memory(error):
                return Refused("model_too_large", "there is not enough memory to load this model")
            log.exception("cannot load %s", blob_id)
            return Refused("load_failed", f"the model could not be loaded: {type(error).__name__}")


def _lacks_memory(error: Exception) -> bool:
    """Whether memory could not be had. On the CPU torch has no exception of its own for that, only words."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
