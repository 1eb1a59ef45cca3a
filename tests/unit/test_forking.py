"""Processes forked from a server: each by itself, known by descriptors, gone with server and starter."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.forking import ForkedProcess, ForkServer, can_fork
from app.processes import start_module

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not can_fork(), reason="it takes descriptors of processes")

SERVER = """
import faulthandler, os, random, signal, sys, time
from app.forking import ending_with, forked
from app.processes import parent_socket

requests = parent_socket()
with ending_with(requests):
    exec(os.environ.get("LOADING", ""))
if (connection := forked(requests)) is None:
    os._exit(0)
with connection:
    while data := connection.recv(4096):
        connection.sendall(str(eval(data.decode())).encode())
"""
FRESH = """
import os, signal
from app.processes import parent_socket
with parent_socket() as connection:
    while data := connection.recv(4096):
        connection.sendall(str(eval(data.decode())).encode())
"""
OPEN_FILES = (
    "' '.join(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
    "if int(n) > 2 and os.path.islink(f'/proc/self/fd/{n}'))"
)
DISPOSITIONS = (  # without the two signals that the C library keeps for its threads
    "[int(line.split()[1], 16) & 0x7fffffff for line in open('/proc/self/status') "
    "if line.startswith(('SigBlk', 'SigIgn', 'SigCgt'))] + [os.nice(0)]"
)
WAYS_TO_END = {"os._exit(3)": 3, "sys.exit()": 0, "1 / 0": 1, "os.kill(os.getpid(), 15)": -15, "os.abort()": -6}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "forking_server.py").write_text(SERVER)
    (tmp_path / "fresh_child.py").write_text(FRESH)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[ForkServer]:
    started = ForkServer("forking_server", niceness=3, env=environment)
    yield started
    started.close()


def ask(connection: socket.socket, expression: str) -> str:
    connection.settimeout(60)
    connection.sendall(expression.encode())
    return connection.recv(4096).decode()


def is_gone(pid: int) -> bool:
    """Also one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_forked_process_is_the_servers_child_and_ends_as_others_do(server: ForkServer) -> None:
    process, connection = server.fork()
    with connection:
        assert ask(connection, "[os.getpid(), os.getppid()]") == str([process.pid, server.pid])
    assert process.wait() == 0
    assert is_gone(process.pid)


@pytest.mark.parametrize(("way", "status"), WAYS_TO_END.items(), ids=WAYS_TO_END.keys())
def test_how_a_forked_process_ended_is_told_and_others_live_on(server: ForkServer, way: str, status: int) -> None:
    (one, of_one), (other, of_other) = server.fork(), server.fork()
    with of_one, of_other:
        assert ask(of_other, "'up'") == "up"
        of_one.sendall(way.encode())
        assert one.wait() == status
        assert ask(of_other, "'still up'") == "still up"
        other.kill()
        assert other.wait() == -signal.SIGKILL
    assert server.is_alive()


def test_one_that_has_ended_is_not_killed_again(server: ForkServer) -> None:
    process, connection = server.fork()
    with connection:
        process.kill()
        assert process.wait() < 0
        process.kill()
        assert process.wait() < 0


def test_a_forked_process_has_its_socket_and_its_line_and_no_other_file(server: ForkServer, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "wb") as secret:
        os.set_inheritable(secret.fileno(), True)
        processes = [server.fork() for _ in range(3)]
        opened = [ask(connection, OPEN_FILES).split() for _, connection in processes]
    for _, connection in processes:
        connection.close()
    assert [len(files) for files in opened] == [2, 2, 2], opened
    assert all(file.startswith("socket:") for files in opened for file in files)
    assert len({file for files in opened for file in files}) == 6, "none is another's"
    assert [process.wait() for process, _ in processes] == [0, 0, 0]


def test_a_forked_process_heeds_signals_as_a_fresh_one_does_and_is_as_nice(
    server: ForkServer, environment: dict[str, str]
) -> None:
    fresh = start_module("fresh_child", niceness=3, env=environment)
    process, connection = server.fork()
    with connection:
        try:
            assert ask(connection, DISPOSITIONS) == ask(fresh.socket, DISPOSITIONS)
        finally:
            fresh.end()
    process.wait()


def test_two_forked_processes_draw_numbers_of_their_own(server: ForkServer) -> None:
    drawn = []
    for _ in range(2):
        process, connection = server.fork()
        with connection:
            drawn.append(ask(connection, "random.getrandbits(64)"))
        process.wait()
    assert drawn[0] != drawn[1], "equal once in 2**64 runs"


def test_when_the_server_is_killed_what_it_forked_is_gone_too(server: ForkServer) -> None:
    processes = [server.fork() for _ in range(2)]
    pids = [process.pid for process, _ in processes]
    os.kill(server.pid, signal.SIGKILL)
    assert [process.wait() for process, _ in processes] == [-signal.SIGKILL] * 2
    for _, connection in processes:
        assert connection.recv(1) == b""
        connection.close()
    assert not server.is_alive()
    assert not server.has_given_up()
    with pytest.raises(OSError, match="Broken pipe"):
        server.fork()
    assert all(map(is_gone, pids))


def test_a_process_that_is_killed_before_it_is_there_never_will_be(environment: dict[str, str]) -> None:
    loading = ForkServer("forking_server", niceness=0, env={**environment, "LOADING": "signal.pause()"})
    process, connection = loading.fork()
    with connection:
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert connection.recv(1) == b""
        with pytest.raises(ProcessLookupError):
            _ = process.pid
    assert not loading.has_given_up(), "that was our doing"
    loading.close()


def test_a_server_that_once_could_fork_has_not_given_up(environment: dict[str, str]) -> None:
    """A limit on processes that was reached for a moment: the next server may do."""
    loading = (
        "real, left = os.fork, [0]\n"
        "def fork():\n"
        "    return real() if left and not left.clear() else sys.exit(7)\n"
        "os.fork = fork"
    )
    once = ForkServer("forking_server", niceness=0, env={**environment, "LOADING": loading})
    process, connection = once.fork()
    with connection:
        assert process.pid
        failed, no_connection = once.fork()
        with no_connection:
            assert failed.wait() == 7
            assert process.wait() == -signal.SIGKILL, "it ends with the server"
    assert not failed.was_forked
    assert not once.has_given_up()
    once.close()


def test_a_server_that_cannot_load_tells_how_it_ended(environment: dict[str, str]) -> None:
    broken = ForkServer("forking_server", niceness=0, env={**environment, "LOADING": "sys.exit(7)"})
    process, connection = broken.fork()
    with connection:
        assert process.wait() == 7
    assert broken.has_given_up()
    broken.close()


@pytest.mark.parametrize("loading", ["", "print('up', flush=True); time.sleep(600)"], ids=["loaded", "loading"])
def test_server_and_forked_processes_are_gone_when_who_started_them_is_killed(
    environment: dict[str, str], loading: str
) -> None:
    code = (
        "import os, time; from app.forking import ForkServer; "
        "server = ForkServer('forking_server', niceness=0, env=os.environ); process, c = server.fork(); "
        "c.sendall(b\"print('up', flush=True)\"); time.sleep(600)"
    )
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{environment['PYTHONPATH']}", "LOADING": loading}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
        assert parent.stdout.read() == b""  # end of file: all that had the other end are gone


def test_closing_the_server_ends_what_it_forked(server: ForkServer) -> None:
    process, connection = server.fork()
    with connection:
        assert ask(connection, "'up'") == "up"
        server.close()
        assert process.wait() == -signal.SIGKILL


def test_where_processes_have_no_descriptors_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_fork()

    def forbidden(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EPERM, "a container's rules")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    assert not can_fork()


def test_a_process_is_heard_of_by_all_threads_that_wait(server: ForkServer) -> None:
    process, connection = server.fork()
    assert isinstance(process, ForkedProcess)
    with connection:
        assert {process.pid for _ in range(3)} == {int(ask(connection, "os.getpid()"))}
    assert [process.wait() for _ in range(3)] == [0, 0, 0]
