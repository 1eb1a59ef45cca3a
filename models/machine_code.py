"""How gates, walks, products and inference are compiled, and where their machine code is kept.

Invariant: code is taken up again only where it was made of these very files by these very versions, for the types that
it is asked for. numba alone looks at the file of a function, not at the functions that it calls; and two processes that
compile at the same time would give two functions' code the same name, so that a training ran another's, silently.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
import torch

HERE = Path(__file__).parent
NAMES = (
    *("arithmetic", "gates", "inference", "likelihood", "pair_walk"),
    *("products", "sampling", "torch_calls", "walks"),
)
"""Files with compiled functions, and with the constants that become a part of them."""
FILES = tuple(HERE / f"{name}.py" for name in NAMES)
VERSIONS = (numba.__version__, llvmlite.__version__, torch.__version__)


def folder_of(base: Path, files: Iterable[Path], versions: Iterable[str]) -> Path:
    """A folder under `base` for the code that is made of these files by these versions."""
    digest = hashlib.sha256("\n".join(versions).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return base / digest.hexdigest()[:16]


# Before anything is compiled. Where the folder cannot be written numba takes the user's own.
_BASE = Path(os.environ.get("NUMBA_CACHE_DIR") or HERE / "__pycache__")
numba.config.CACHE_DIR = str(folder_of(_BASE, FILES, VERSIONS))


def _if_it_can(save: Callable[..., None]) -> Callable[..., None]:
    """A full disk must not fail the call whose code was to be kept."""

    def save_or_not(*arguments: Any) -> None:
        with suppress(OSError):
            save(*arguments)

    return save_or_not


def load_compiler() -> None:
    """What numba would load at the first call of any compiled function, a quarter of a second. Runs none."""
    from numba.core.registry import cpu_target

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function that numba compiles at its first call, without Python's lock, and keeps for later processes."""

    def compile_later(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(error_model="numpy", cache=True, nogil=True, **options)(function)
        kept = dispatcher._cache._cache_file
        # Instead of numbers: the next free one is the same for two processes that look at the same time.
        kept._data_name = lambda _number: f"{uuid.uuid4().hex}.nbc"
        dispatcher._cache.save_overload = _if_it_can(dispatcher._cache.save_overload)
        return dispatcher

    return compile_later
