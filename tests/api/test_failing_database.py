"""A database that fails while the service runs: told as 503, survived, and served from again once it works."""

import pytest

from tests.api.service import Service, assert_problem


def overwrite(service: Service, data: bytes) -> bytes:
    """Write over the whole database file, under a service that has just closed its connections; what it held."""
    service.database.close()
    path = service.database._engine.url.database
    assert path is not None
    with open(path, "r+b") as file:
        before = file.read()
        file.seek(0)
        file.write(data.ljust(len(before), b"\xff"))
    return before


@pytest.mark.parametrize("kept", [4096, 0], ids=["malformed", "no database"])
def test_a_damaged_database_answers_503_everywhere_and_works_again_when_it_is_whole(
    service: Service, kept: int
) -> None:
    before = overwrite(service, b"")
    overwrite(service, before[:kept])

    for answer in (
        service.http.get("/jobs"),
        service.http.get("/models/x"),
        service.http.post("/jobs", json={"corpus": "hamlet"}),
        service.upload(),
    ):
        assert assert_problem(answer, 503)["code"] == "store_unavailable"
        assert int(answer.headers["retry-after"]) > 0
    assert assert_problem(service.http.get("/readyz"), 503)["code"] == "not_ready"
    assert service.http.get("/healthz").status_code == 200

    overwrite(service, before)
    assert service.upload().status_code == 201
    assert service.http.get("/readyz").status_code == 200
