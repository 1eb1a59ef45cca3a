"""Hosts and origins as requests and settings write them: `name:8000`, `[::1]:8000`, `https://name`.

Knows no HTTP. Invariant: what is accepted has the one form that browsers send, in lower case; a host with anything
around it (`user@host`, `[::1]more`, `host:port:more`) is none, since others may read another host out of it.
"""

import ipaddress
import re
from typing import NamedTuple

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_AUTHORITY = re.compile(rf"(?P<host>{_NAME}|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host, in brackets if it is an address of version 6, and the port if one is named."""

    host: str
    port: int | None

    @property
    def is_address(self) -> bool:
        """Whether the host is an address, which no name server can make another one of."""
        try:
            if self.host.startswith("["):
                ipaddress.IPv6Address(self.host[1:-1])
            else:
                ipaddress.IPv4Address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def parse_authority(text: str) -> Authority | None:
    """`host` or `host:port`; None for anything else."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    authority = Authority(found["host"], None if found["port"] is None else int(found["port"]))
    if (authority.port or 0) > 65_535 or (authority.host.startswith("[") and not authority.is_address):
        return None
    return authority


def parse_origin(text: str) -> tuple[str, Authority] | None:
    """Scheme (http or https) and authority, without the port that the scheme has anyway; None for anything else."""
    found = _ORIGIN.fullmatch(text.lower())
    authority = None if found is None else parse_authority(found["authority"])
    if found is None or authority is None:
        return None
    if authority.port == _DEFAULT_PORTS[found["scheme"]]:
        authority = Authority(authority.host, None)
    return found["scheme"], authority


def host_of_setting(text: str) -> str:
    """A host's name as a setting gives it. Raises ValueError for what would never be one, or more than one."""
    authority = parse_authority(text)
    if authority is None or authority.port is not None:
        raise ValueError(
            f"{text!r} is no name of a host like example.org: without scheme, port and path, and no pattern"
        )
    return authority.host


def origin_of_setting(text: str) -> str:
    """An origin as browsers send it. Raises ValueError."""
    found = parse_origin(text)
    if found is None:
        raise ValueError(f"{text!r} is no origin like https://example.org: without a path, and no pattern")
    return f"{found[0]}://{found[1]}"
