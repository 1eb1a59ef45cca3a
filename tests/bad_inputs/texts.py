"""Bad texts, and texts that look bad and are none."""

from tests.bad_inputs.case import NAME, Case, called, upload
from tests.bad_inputs.wire import FORM, announced, endless, filled, form, part, request

BEGINNING = b"to be, or not to be\n"


def cases(limit_bytes: int) -> list[Case]:
    """For a service that takes texts of so many bytes."""
    return [*no_texts(), *odd_texts(), *too_large(limit_bytes), *names(), *forms(), *calls()]


def no_texts() -> list[Case]:
    return [
        upload("empty upload", b"", says="empty"),
        upload("one character", "é".encode(), says="one character"),
        upload("a byte order mark alone", b"\xef\xbb\xbf", says="empty"),
        upload("invalid UTF-8", b"good \xff bad", says="0xff at byte 5"),
        upload("UTF-8 cut within a character", "a café".encode()[:-1], says="at byte 5"),
        upload("a surrogate in UTF-8", b"ab\xed\xa0\x80", says="at byte 2"),
        upload("an overlong form in UTF-8", b"ab\xc0\xaf", says="at byte 2"),
        upload("beyond U+10FFFF in UTF-8", b"ab\xf4\x90\x80\x80", says="at byte 2"),
        upload("invalid after a byte order mark", b"\xef\xbb\xbfab\xff", says="at byte 5"),
        upload("invalid after 200,000 bytes", b"a" * 200_000 + b"\xff", says="at byte 200000"),
        upload("UTF-16, with its mark", "words".encode("utf-16"), says="UTF-16"),
        upload("UTF-16 little endian, no mark", "words".encode("utf-16-le"), says="NUL character at byte 1"),
        upload("UTF-16 big endian, no mark", "words".encode("utf-16-be"), says="NUL character at byte 0"),
        upload("UTF-32, with its mark", "words".encode("utf-32"), says="UTF-32"),
        upload("a NUL character", b"nul \x00 in it", says="NUL character at byte 4"),
        upload("a NUL character after a mark", b"\xef\xbb\xbfnul \x00", says="NUL character at byte 7"),
        upload("Latin-1", "wörter".encode("latin-1"), says="0xf6 at byte 1"),
        upload("gzip", b"\x1f\x8b\x08\x00\x00\x00", says="at byte"),
        upload("a PNG picture", b"\x89PNG\r\n\x1a\n\x00", says="0x89 at byte 0"),
        upload("a model as a text", (10).to_bytes(8, "little") + b"{}        ", says="NUL character at byte 1"),
    ]


def odd_texts() -> list[Case]:
    kept = {
        "every kind of line ending": b"one\r\ntwo\rthree\nfour\n\r\x0b\x0c\xc2\x85\xe2\x80\xa8\xe2\x80\xa9end",
        "emoji, joiners, decomposed letters": "👩‍👩‍👧 e\u0301 é \ufeff \u202e \U0010ffff".encode(),
        "control characters but NUL": bytes(range(1, 128)),
        "a boundary in the text": f"--{FORM.rpartition('=')[2]}x\r\n--\r\n\r\n".encode(),
        "spaces at both ends": b" \n\t to be \t\n ",
    }
    marked, said = b"\xef\xbb\xbfa marked text", '"byte_order_mark_dropped":true'
    return [
        upload("a byte order mark: dropped, said so", marked, 201, "", said, back=marked[3:]),
        *(upload(what, text, 201, "", back=text) for what, text in kept.items()),
    ]


def too_large(limit_bytes: int) -> list[Case]:
    opening = part("file", b"", "large.txt")[:-2]
    end, large = b"\r\n" + form(), "content_too_large"
    return [
        Case("one byte over the limit", lambda: filled("/corpora", opening, limit_bytes + 1, end, FORM), 413, large),
        Case("10 TB announced", lambda: announced("/corpora", 10**13, opening, FORM), 413, large),
        Case("chunked, without an end", lambda: endless("/corpora", opening, b"x" * 65_536, FORM), 413, large),
        Case("a form's name without an end",
             lambda: endless("/corpora", part("name", b"")[:-2], b"x" * 65_536, FORM), 400, "bad_request"),
        Case("a part's headers without an end",
             lambda: endless("/corpora", opening[:-2], b"x" * 65_536, FORM), 400, "bad_request"),
        Case("another call: chunked, without an end",
             lambda: endless("/jobs", b'{"corpus": "', b"x" * 65_536, "application/json"), 413, large),
    ]  # fmt: skip


def names() -> list[Case]:
    bad = "invalid_name"
    return [
        upload("a name that looks like an id", BEGINNING, 422, bad, "form of an id", name="corpus_" + "a" * 26),
        upload("a name that looks like a path", BEGINNING, 422, bad, "1 to 64", name="../../etc/passwd"),
        upload("a name of one dot", BEGINNING, 422, bad, "folder", name="."),
        upload("a name of two dots", BEGINNING, 422, bad, "folder", name=".."),
        upload("a name of 65 characters", BEGINNING, 422, bad, "1 to 64", name="n" * 65),
        upload("a name of 10 KB", BEGINNING, 422, "invalid_request", "1000", name="n" * 10_000),
        upload("a name with CR and LF", BEGINNING, 422, bad, "1 to 64", name="a\r\nSet-Cookie: b"),
        upload("a name with NUL", BEGINNING, 422, bad, "1 to 64", name="a\x00b"),
        upload("a file name that is a path", b"path " + BEGINNING, 201, "", '"name":"passwd"',
               file_name="../../etc/passwd", back=b"path " + BEGINNING),
        upload("a file name that looks like an id", b"id " + BEGINNING, 201, "", '"name":"corpus"',
               file_name="corpus_" + "a" * 26, back=b"id " + BEGINNING),
        upload("a file name of 10 KB", BEGINNING, 400, "bad_request", file_name="n" * 10_000),
        upload("a file name with CR and LF", b"cr " + BEGINNING, 201, "", '"name":"a"', file_name="a\r\nX: b",
               back=b"cr " + BEGINNING),
        upload("a file name with %0D%0A, as browsers write it", b"pc " + BEGINNING, 201, "", '"name":"a-0D-0AX-b"',
               file_name="a%0D%0AX: b.txt", back=b"pc " + BEGINNING),
        upload("a file name with NUL", b"nul " + BEGINNING, 201, "", '"name":"a-b"', file_name="a\x00b",
               back=b"nul " + BEGINNING),
        upload("a file name of invalid UTF-8", b"u8 " + BEGINNING, 201, "", file_name=b"a\xff\xfeb.txt",
               back=b"u8 " + BEGINNING),
        upload("no file name's characters left", b"no " + BEGINNING, 201, "", '"name":"corpus"', file_name="日本.txt",
               back=b"no " + BEGINNING),
    ]  # fmt: skip


def forms() -> list[Case]:
    text, bad = part("file", BEGINNING, "a.txt"), "bad_request"

    def sent(what: str, body: bytes, status: int, code: str, kind: str | bytes | None = FORM, says: str = "") -> Case:
        return Case(what, lambda: request("POST", "/corpora", body, kind), status, code, says)

    return [
        sent("no body", b"", 422, "invalid_request", None, "file"),
        sent("a form without a file", form(part("name", b"x")), 422, "invalid_request", says="curl -F file=@FILE"),
        sent("a file that is no file", form(part("file", BEGINNING)), 422, "invalid_request", says="with the @"),
        sent("a misspelt part", form(text, part("nmae", b"x")), 422, "invalid_request", says="did you mean name?"),
        sent("two files", form(text, text), 400, bad, says="files"),
        sent("ten thousand fields", form(text, *[part(f"f{n}", b"") for n in range(10_000)]), 400, bad),
        sent("ten thousand headers in a part",
             form(part("file", BEGINNING, "a", b"".join(b"X-%d: y\r\n" % n for n in range(10_000)))), 400, bad),
        sent("no boundary", form(text), 400, bad, "multipart/form-data", "boundary"),
        sent("another boundary", form(text), 400, bad, "multipart/form-data; boundary=other", "at index"),
        sent("a form that breaks off", form(text)[:-10], 422, "invalid_request", says="file"),
        sent("text sent as it is", BEGINNING, 422, "invalid_request", "text/plain"),
        sent("JSON in place of a form", b'{"file": "x"}', 422, "invalid_request", "application/json"),
        sent("a form that is urlencoded", b"file=to+be", 422, "invalid_request", "application/x-www-form-urlencoded",
             "curl -F file=@FILE"),
        sent("a text that is urlencoded, as curl --data-binary sends it", BEGINNING * 1000, 400, bad,
             "application/x-www-form-urlencoded", "curl -F file=@FILE"),
        sent("an unknown charset", form(text), 422, "invalid_request", FORM + "; charset=nonsense", "file"),
        sent("a content type of no sense", form(text), 422, "invalid_request", b"\xff\x80/;;=\x01"),
    ]  # fmt: skip


def calls() -> list[Case]:
    missing = "corpus_not_found"
    return [
        called("an unknown corpus", "GET", "/corpora/nobody", 404, missing, "nobody"),
        called("an unknown corpus of 10 KB", "GET", "/corpora/" + "n" * 10_000, 404, missing),
        called("delete an unknown corpus", "DELETE", "/corpora/corpus_" + "a" * 26, 404, missing),
        called("NUL in a path", "GET", "/corpora/a%00b", 404, missing),
        called("half a surrogate pair in a path", "GET", "/corpora/%ed%a0%80", 404, missing),
        called("invalid UTF-8 in a path", "GET", "/corpora/%ff%fe/text", 404, missing),
        called("CR and LF in a path", "GET", "/corpora/a%0d%0aSet-Cookie:b", 404, missing),
        called("a path out of the service", "GET", "/corpora/..%2f..%2fetc%2fpasswd", 404, "not_found"),
        called("dots in a path", "GET", "/corpora/../../etc/passwd", 404, "not_found"),
        called("SQL in a path", "GET", "/corpora/x'%20OR%201=1--", 404, missing),
        called("a cursor of another list", "GET", f"/corpora?after=job_{'a' * 26}", 422, "invalid_cursor", "after"),
        called("a cursor that is none", "GET", "/corpora?after=%00%ff", 422, "invalid_cursor", "after"),
        called("a cursor of 10 KB", "GET", "/corpora?after=" + "a" * 10_000, 422, "invalid_request", "after"),
        *(called(f"limit={limit[:20]}", "GET", f"/corpora?limit={limit}", 422, "invalid_request", "limit")
          for limit in ("0", "-1", "101", "1.5", "5.0", "1_0", "%2B5", "NaN", "", "%00", "1e400", "9" * 5000)),
        called("a misspelt limit", "GET", "/corpora?limt=5", 422, "invalid_request", "did you mean limit?"),
        called("limit twice, the last one wrong", "GET", "/corpora?limit=5&limit=0", 422, "invalid_request", "limit"),
        called("delete a corpus of a slash", "DELETE", "/corpora/", 404, "not_found"),
        called(f"a part of {NAME} that is not there", "GET", f"/corpora/{NAME}/nothing", 404, "not_found"),
    ]  # fmt: skip
