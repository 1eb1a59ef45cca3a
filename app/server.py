"""The service under uvicorn: how it listens, and how it ends.

Knows the app only by its state. Invariant: on SIGTERM or Ctrl-C open streams end within a second, so that a shutdown
never waits for a client; and the loop does little while it cannot accept.
"""

import errno
import ipaddress
import logging
import socket
from contextlib import closing

import uvicorn
from fastapi import FastAPI

from app import logs
from app.descriptors import raise_limit
from app.main import begin_shutdown, create_app
from app.protocol import Protocol
from app.settings import Settings, SettingsError
from app.store.api_keys import any_usable
from app.store.opening import open_database

SHUTDOWN_SECONDS = 5
"""For answers under way; whatever takes longer is cut off."""

ACCEPTED_AT_ONCE = 1
"""In one turn of the loop. asyncio tries as often as its `backlog` says, and where no descriptor is left (Python 3.11)
logs each failure and sets a timer of its own to try so many again: 2048 times more every second."""
WAITING_CONNECTIONS = 2048
"""In the kernel, until they are accepted; uvicorn's own number. Linux bounds it by `net.core.somaxconn`."""


class Server(uvicorn.Server):
    """A uvicorn server that tells the app's streams to end before it waits for connections to close."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in (each for server in self.servers for each in server.sockets):
            with listener.dup() as same:  # of which asyncio shows no `listen`
                same.listen(WAITING_CONNECTIONS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        begin_shutdown(app)
        await super().shutdown(sockets)


def make_server(settings: Settings, app: FastAPI | None = None) -> Server:
    """A server ready to `run`.

    Raises SettingsError if it would be open to others without being told so; DatabaseUnusable if that cannot be known.
    """
    check_open_by_choice(settings)
    config = uvicorn.Config(
        app or create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        log_config=None,  # its lines go the way of ours
        http=Protocol,
        backlog=ACCEPTED_AT_ONCE,
        server_header=False,
        # Anyone on this machine could make up an address that the log then shows, and a scheme.
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ws="none",
    )
    logging.getLogger("uvicorn.access").addFilter(without_query)
    return Server(config)


def without_query(record: logging.LogRecord) -> bool:
    """True, once what uvicorn tells of an answer is without the query: a prompt by GET is in it. Its parts are fields
    as well. As a filter of its log."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, target, version, status = record.args
        path = str(target).partition("?")[0]
        record.args = (client, method, path, version, status)
        record.fields = {"client": client, "method": method, "path": path, "status": status}
    return True


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises what `make_server` raises; SettingsError if the port is taken; DatabaseUnusable if there is no database.
    """
    logs.set_up("service", settings.log_level, settings.log_format)
    raise_limit()
    # Not by the app: of what fails while that starts uvicorn makes a traceback in a line, and a status of its own.
    with closing(open_database(settings.resolved_database_url)) as database:
        server = make_server(settings, create_app(settings, database=database))
        check_port_free(settings.host, settings.port)
        server.run()


def check_port_free(host: str, port: int) -> None:
    """Raises SettingsError where it is taken, or not for us: uvicorn would say so after all has started, in its log.

    Whatever else keeps it from listening, as a family of addresses that this machine has not, is uvicorn's to tell.
    """
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with closing(socket.socket(family, kind, protocol)) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio binds
                tried.bind(where)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise SettingsError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def check_open_by_choice(settings: Settings) -> None:
    """Refuse to listen where others can connect, as long as there is no key that somebody could show."""
    if settings.allow_anonymous or _is_loopback(settings.host) or _has_usable_key(settings.resolved_database_url):
        return
    raise SettingsError(
        f"CHARSMITH_HOST: {settings.host} is open to others and there is no API key that is valid; make one with "
        "`charsmith keys create`, or set CHARSMITH_ALLOW_ANONYMOUS=1 if that is meant"
    )


def _has_usable_key(database_url: str) -> bool:
    with closing(open_database(database_url)) as database:
        return any_usable(database)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
