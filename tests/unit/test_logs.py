"""Log lines: whatever is said in them, one record is one line, and nothing in it can drive a terminal."""

import json
import logging
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from app import logs

HOSTILE = "a\r\n2026-01-01 INFO forged\x1b[2J\x1b]0;owned\x07\x7f\x9b\u202e\u2028b"
SAY = """
import sys, threading, warnings
from app import logs
logs.set_up("test", "info", sys.argv[1])
import logging
logging.getLogger("a").warning("%s", sys.argv[2])
warnings.warn("of old")
def fail(): raise ValueError(sys.argv[2])
thread = threading.Thread(target=fail); thread.start(); thread.join()
fail()
"""


def record(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("name", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__ |= extra
    return made


@pytest.mark.parametrize("form", [logs.JsonLines("test"), logs.TextLines("test")])
def test_what_came_from_outside_is_escaped(form: logging.Formatter) -> None:
    line = form.format(record("a file called %s", HOSTILE))
    assert line.isprintable()
    assert "forged" in line


KEY = f"csk_{'a' * 16}_{'b' * 32}"


@pytest.mark.parametrize("form", [logs.JsonLines("test"), logs.TextLines("test")])
def test_an_api_key_is_in_no_part_of_a_line(form: logging.Formatter) -> None:
    for told in (
        record(f"a model {KEY}"),
        record("a model %s", KEY),
        record("it gave up", trace=f"ValueError: {KEY}"),
        record("asked", fields={"path": f"/models/{KEY}"}),
    ):
        assert "b" * 32 not in form.format(told)


def test_a_line_of_json_tells_when_who_and_what() -> None:
    told = json.loads(logs.JsonLines("test").format(record("job %s", "x", fields={"status": 200})))
    assert told.pop("time").endswith("Z")
    assert told == {"level": "warning", "process": "test", "logger": "name", "message": "job x", "status": 200}
    hostile = json.loads(logs.JsonLines("test").format(record("%s", HOSTILE)))
    assert hostile["message"] == HOSTILE


def test_the_trace_of_another_process_is_told_with_its_lines_in_text_and_within_one_line_in_json() -> None:
    told = record("it gave up", trace=f"Traceback\n  ValueError: {HOSTILE}")
    assert json.loads(logs.JsonLines("test").format(told))["exception"].startswith("Traceback\n")
    first, *rest = logs.TextLines("test").format(told).split("\n")
    assert first.endswith("name: it gave up")
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def said(form: str, stderr: int = subprocess.PIPE) -> str:
    command = [sys.executable, "-c", SAY, form, HOSTILE]
    return subprocess.run(command, stderr=stderr, timeout=60, check=False, text=True).stderr


def test_warnings_and_what_ends_a_thread_or_the_process_are_lines_too() -> None:
    lines = [json.loads(line) for line in said("json").splitlines()]
    assert [line["level"] for line in lines] == ["warning", "warning", "critical", "critical"]
    assert all(HOSTILE in line["exception"] for line in lines[2:])


def test_a_terminal_gets_text_and_a_pipe_gets_json() -> None:
    assert said("auto").startswith("{")
    ours, theirs = pty.openpty()
    try:
        said("auto", theirs)
        assert b"WARNING test a: a\\r\\n2026" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
