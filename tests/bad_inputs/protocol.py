"""What is wrong below the routes: methods, paths, hosts, headers, and bytes that are no HTTP."""

from collections.abc import Iterable

from tests.bad_inputs.case import NAME, Case, called
from tests.bad_inputs.wire import Header, head, request


def cases() -> list[Case]:
    return [*methods(), *paths(), *others(), *no_http()]


def methods() -> list[Case]:
    wrong = "method_not_allowed"
    return [
        *(called(f"{method} {path}", method, path, 405, wrong)
          for method, path in [("PUT", "/corpora"), ("PATCH", f"/corpora/{NAME}"), ("DELETE", "/corpora"),
                               ("POST", f"/corpora/{NAME}"), ("GET", f"/jobs/{NAME}/cancel"), ("PUT", "/generate"),
                               ("POST", "/healthz"), ("TRACE", "/corpora"), ("OPTIONS", "/jobs"), ("BREW", "/models"),
                               ("get", "/corpora"), ("X" * 1000, "/corpora")]),
        called("CONNECT", "CONNECT", "example.org:443", 404, "not_found"),
        called("OPTIONS *", "OPTIONS", "*", 404, "not_found"),
    ]  # fmt: skip


def paths() -> list[Case]:
    return [
        called("an unknown path", "GET", "/nowhere", 404, "not_found"),
        called("two slashes", "GET", "//corpora", 404, "not_found"),
        called("a path of 60 KB", "GET", "/" + "a" * 60_000, 404, "not_found"),
        called("a path with a fragment", "GET", "/corpora%23", 404, "not_found"),
        called("a whole address as a path", "GET", "http://localhost/corpora/x", 404, "not_found"),
        called("a half escape in a path", "GET", "/corpora/%", 404, "corpus_not_found"),
        called("a query of no sense", "GET", "/corpora/nobody?%&=&;=%00&&&%zz", 422, "invalid_request", "unknown"),
        called("a query that a call does not take", "DELETE", f"/corpora/{NAME}?dry_run=1", 422, "invalid_request",
               "dry_run: unknown"),
        called("an unknown path, named", "GET", "/corporas", 404, "not_found", "/corporas"),
        called("a path of /openapi.json/..", "GET", "/openapi.json/..", 404, "not_found"),
    ]  # fmt: skip


def others() -> list[Case]:
    def told(what: str, status: int, code: str, *headers: Header) -> Case:
        return Case(what, lambda: [head("GET", "/corpora", [*headers, ("Connection", "close")])], status, code)

    local: Header = ("Host", "localhost")
    return [
        told("a foreign host", 403, "foreign_host", ("Host", "evil.example")),
        told("an empty host", 403, "foreign_host", ("Host", "")),
        told("a host that is no address", 403, "foreign_host", ("Host", "[::1")),
        told("a host of bytes", 403, "foreign_host", ("Host", b"\xff\xfe")),
        told("a foreign origin", 403, "foreign_origin", local, ("Origin", "https://evil.example")),
        told("an origin of null", 403, "foreign_origin", local, ("Origin", "null")),
        told("an origin that is no address", 403, "foreign_origin", local, ("Origin", "http://[::1")),
        told("a page of another site", 403, "foreign_origin", local, ("Sec-Fetch-Site", "cross-site")),
    ]


def no_http() -> list[Case]:
    bad = "bad_request"

    def sent(what: str, *pieces: bytes, says: str = "") -> Case:
        return Case(what, lambda: pieces, 400, bad, says)

    def headed(what: str, headers: Iterable[Header], body: bytes = b"") -> Case:
        return Case(what, lambda: [head("POST", "/jobs", [("Host", "localhost"), *headers]) + body], 400, bad)

    chunked: Header = ("Transfer-Encoding", "chunked")
    return [
        sent("no HTTP", b"to be, or not to be\r\n\r\n"),
        sent("the hello of TLS", bytes.fromhex("16030100c8010000c40303") + bytes(100) + b"\r\n\r\n"),
        sent("no host", b"GET /corpora HTTP/1.1\r\n\r\n"),
        sent("two hosts", b"GET /corpora HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
        sent("HTTP/x", b"GET /corpora HTTP/x\r\nHost: localhost\r\n\r\n"),
        sent("NUL in a header", b"GET /corpora HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
        sent("NUL in a path as it is", b"GET /corpora/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        sent("a path that is not ASCII", b"GET /corpora/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
             says="percent-encoded"),
        sent("a query that is not ASCII", "GET /generate?model=x&prompt=é HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
             says="percent-encoded"),
        sent("a header without a name", b"GET /corpora HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n"),
        Case("ten thousand headers",
             lambda: request("GET", "/corpora", headers=[(f"X-{n}", "y") for n in range(10_000)]), 400, bad),
        Case("a header of 1 MB", lambda: request("GET", "/corpora", headers=[("X", "y" * 1_000_000)]), 400, bad),
        Case("a path of 1 MB", lambda: request("GET", "/" + "a" * 1_000_000), 400, bad),
        headed("a negative length", [("Content-Length", "-1")]),
        headed("a length of 5,000 digits", [("Content-Length", "9" * 5000)]),
        headed("two lengths", [("Content-Length", "2"), ("Content-Length", "3")], b"{}"),
        headed("an unknown transfer coding", [("Transfer-Encoding", "gzip")]),
        headed("a chunk of no size", [chunked, ("Content-Type", "application/json")], b"zz\r\n{}\r\n"),
        headed("a chunk larger than it says", [chunked, ("Content-Type", "application/json")], b"1\r\n{}{}{}\r\n"),
    ]  # fmt: skip
