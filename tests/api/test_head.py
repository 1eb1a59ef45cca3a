"""HEAD answers what GET would, without its body."""

import httpx
import pytest

from tests.api.service import Service

PATHS = ["/", "/docs", "/openapi.json", "/healthz", "/nowhere", "/corpora", "/corpora/hamlet", "/corpora/hamlet/text",
         "/corpora/nobody", "/corpora?limit=0", "/jobs/hamlet", "/jobs/hamlet/metrics", "/jobs/hamlet/loss.png",
         "/models"]  # fmt: skip
OF_THE_MOMENT = {"date", "x-request-id"}


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_status_and_headers_of_get_and_no_body(service: Service, path: str) -> None:
    service.enqueue()
    got, head = service.http.get(path), service.http.head(path)

    def lasting(answer: httpx.Response) -> dict[str, str]:
        return {name: value for name, value in answer.headers.items() if name not in OF_THE_MOMENT}

    assert head.status_code == got.status_code
    assert head.content == b""
    assert lasting(head) == lasting(got)
    assert service.http.get("/healthz").is_success  # on the same connection


@pytest.mark.parametrize("path", ["/generate?model=hamlet", "/jobs/hamlet/events", "/jobs/hamlet/cancel"])
def test_a_stream_and_an_act_have_no_head(service: Service, path: str) -> None:
    service.enqueue()
    answer = service.http.head(path)

    assert answer.status_code == 405
    assert "HEAD" not in answer.headers["allow"]


def test_head_of_a_text_reads_its_beginning_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.upload(name="hamlet")
    read = []

    def pieces(*_: object) -> object:
        for number in range(5):
            read.append(number)
            yield b"to be"

    monkeypatch.setattr("app.store.corpora.read_corpus", pieces)

    assert service.http.head("/corpora/hamlet/text").headers["content-length"] == "4200"
    assert read == [0]


def test_what_has_no_content_has_no_content_type(service: Service) -> None:
    service.upload(name="hamlet")
    answer = service.http.delete("/corpora/hamlet")

    assert answer.status_code == 204
    assert "content-type" not in answer.headers
