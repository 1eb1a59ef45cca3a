"""What the processes say of themselves, on standard error: a JSON object a line, or text for a person's terminal.

Knows nothing of what is said. Invariants: a record is one line of JSON; nothing that came from outside ends a line,
moves a cursor or colours a terminal, in either form; what ends a process is told in the same form; and no API key is
in it, whoever put one into an address or a name.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from app.store.key_text import without_keys

LEVEL, FORMAT = "CHARSMITH_LOG_LEVEL", "CHARSMITH_LOG_FORMAT"
TALKATIVE = ("numba", "matplotlib", "python_multipart", "PIL")
"""Of others, at level debug: thousands of lines for each upload or compiled function."""

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered; threads that work for it see it too."""

log = logging.getLogger(__name__)


def set_up(process: str, level: str, form: str) -> None:
    """From now on this process logs as `process`, from `level` on; `form` is auto, text or json."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines(process) if as_text else JsonLines(process))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _tell_uncaught
    threading.excepthook = _tell_uncaught_in_thread


def set_up_as_told(process: str) -> None:
    """As `set_up`, in a child of a process that has checked the settings: level and form are its own."""
    told = {name.upper(): value for name, value in os.environ.items()}
    set_up(process, told.get(LEVEL) or "info", told.get(FORMAT) or "auto")


class JsonLines(logging.Formatter):
    """`time`, `level`, `process`, `logger`, `message`; `request_id` within a request; `exception` with its trace; and
    what `extra` has in `fields`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            document["request_id"] = request_id
        if trace := _trace(self, record):
            document["exception"] = trace
        # DEL alone of what can harm is neither escaped by JSON's rules nor beyond ASCII.
        line = json.dumps({**document, **_fields(record)}, default=str).replace("\x7f", "\\u007f")
        return without_keys(line)


class TextLines(logging.Formatter):
    """One line for people; the lines of a trace follow, set in."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        said = printable(f"{_time(record)} {record.levelname} {self._process} {record.name}: {record.getMessage()}")
        if request_id := REQUEST_ID.get():
            said += f" request_id={request_id}"
        trace = _trace(self, record).splitlines()
        return without_keys("\n    ".join([said, *map(printable, trace)]))


def printable(text: str) -> str:
    """The same text with everything escaped that is no plain character: controls, line ends, marks of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Of the exception that the record has, or that another process told (`extra={"trace": ...}`)."""
    told = str(getattr(record, "trace", ""))
    return formatter.formatException(record.exc_info) if record.exc_info else told


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, Mapping) else {}


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("the process ends by an exception", exc_info=(kind, error, trace))


def _tell_uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        name = told.thread.name if told.thread else "unknown"
        log.critical("thread %s ends by an exception", name, exc_info=told.exc_value)
