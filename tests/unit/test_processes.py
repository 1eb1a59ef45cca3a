"""Children of ours: joined by a socket, inheriting nothing else, ending with us."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.processes import Child, start_module

ROOT = Path(__file__).resolve().parents[2]

ECHO = """
import faulthandler, os, sys
faulthandler.dump_traceback_later(60)
from app.processes import end_with_parent, parent_socket
end_with_parent()
with parent_socket() as connection:
    while data := connection.recv(4096):
        connection.sendall(eval(data.decode()).encode())
"""

SLEEPER = """
import signal
from app.processes import end_with_parent, parent_socket
end_with_parent()
connection = parent_socket()
print("up", flush=True)
signal.pause()
"""

ENDING = """
import builtins, os, signal
from app.processes import StopRequest, end_well_when_asked

class Late:
    write, read = os.write, os.read  # its globals are gone when it is deleted
    def __del__(self):
        self.write(1, b"ending\\n")
        self.read(0, 1)

{listening}
builtins.late = Late()  # outlives all modules
os.write(1, b"up\\n")
{waiting}
"""
WAYS_TO_END = {
    "end_well_when_asked": ("end_well_when_asked()", "signal.pause()"),
    "StopRequest": ("stop = StopRequest(); stop.listen()", "assert stop.wait(60)"),
}


@pytest.fixture
def module(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "echo_child.py").write_text(ECHO)
    (tmp_path / "sleeping_child.py").write_text(SLEEPER)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def ask(child: Child, expression: str) -> str:
    child.socket.settimeout(90)
    child.socket.sendall(expression.encode())
    try:
        return child.socket.recv(4096).decode()
    except TimeoutError:
        state = Path(f"/proc/{child.process.pid}/status").read_text()
        raise AssertionError(f"the child does not answer: {state}") from None


def test_a_child_talks_over_its_socket_and_sees_its_own_arguments_alone(module: dict[str, str]) -> None:
    child = start_module("echo_child", ["first", "second"], env=module)
    try:
        assert ask(child, "' '.join(sys.argv[1:])") == "first second"
    finally:
        child.end()


def test_a_child_inherits_no_other_open_file(module: dict[str, str], tmp_path: Path) -> None:
    with open(tmp_path / "secret", "wb") as secret:
        os.set_inheritable(secret.fileno(), True)
        child = start_module("echo_child", env=module)
        try:
            opened = ask(
                child,
                # Whatever its number: of a parent with many open files the socket's is high.
                "' '.join(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
                "if int(n) > 2 and os.path.islink(f'/proc/self/fd/{n}'))",
            )
            assert "secret" not in opened
            assert opened.count("socket:") == 1
        finally:
            child.end()


def test_a_child_runs_this_code_from_any_folder(
    module: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "app").mkdir(parents=True)
    (tmp_path / "elsewhere" / "app" / "__init__.py").write_text("raise RuntimeError('the wrong app')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    child = start_module("echo_child", env=module)
    try:
        assert ask(child, "sys.modules['app.processes'].__file__") == str(ROOT / "app" / "processes.py")
    finally:
        child.end()


def test_a_child_is_nicer_by_what_is_asked_and_ignores_ctrl_c(module: dict[str, str]) -> None:
    child = start_module("echo_child", env=module, niceness=3)
    try:
        assert ask(child, "str(os.nice(0))") == str(os.nice(0) + 3)
        child.process.send_signal(signal.SIGINT)
        assert ask(child, "'still here'") == "still here"
    finally:
        child.end()


def test_closing_the_socket_is_seen_by_the_child(module: dict[str, str]) -> None:
    child = start_module("echo_child", env=module)
    assert ask(child, "'up'") == "up"
    child.socket.close()
    assert child.process.wait(20) == 0


def test_a_child_that_does_not_listen_is_ended_after_its_grace(module: dict[str, str]) -> None:
    child = start_module("echo_child", env=module)
    ask(child, "str(__import__('signal').signal(15, __import__('signal').SIG_IGN))")
    os.kill(child.process.pid, signal.SIGSTOP)
    assert child.end(grace_seconds=0.05) == -signal.SIGKILL


def test_a_child_ends_when_its_parent_is_killed(module: dict[str, str]) -> None:
    code = "import time; from app.processes import start_module; start_module('sleeping_child'); time.sleep(60)"
    env = {**module, "PYTHONPATH": f"{ROOT}{os.pathsep}{module['PYTHONPATH']}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    assert parent.stdout.read() == b""  # end of file: the child, which held the other end too, is gone
    parent.wait()
    parent.stdout.close()


def test_a_closed_standard_input_does_not_break_the_socket(module: dict[str, str]) -> None:
    code = (
        "import os; os.close(0); from app.processes import start_module; c = start_module('echo_child'); "
        "c.socket.sendall(b\"'works'\"); print(c.socket.recv(99).decode(), flush=True); c.end()"
    )
    env = {**module, "PYTHONPATH": f"{ROOT}{os.pathsep}{module['PYTHONPATH']}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=30, check=True)
    assert done.stdout == b"works\n"


@pytest.mark.parametrize("way", WAYS_TO_END)
@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_who_is_asked_a_second_time_while_python_ends_has_ended_well_all_the_same(
    way: str, again: signal.Signals
) -> None:
    listening, waiting = WAYS_TO_END[way]
    code = ENDING.format(listening=listening, waiting=waiting)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.stdout.readline() == b"ending\n"
        process.send_signal(again)
        process.stdin.close()  # lets it end
        assert process.wait(60) == 0
