"""A database that fails while the service runs: told as 503, survived, and served from again once it works."""

import pytest
from sqlalchemy import make_url

from tests.api.service import Service, assert_problem
from tests.databases import SERVER, command, postgres_only, sqlite_only


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


@sqlite_only
@pytest.mark.parametrize("kept", [4096, 0], ids=["malformed", "no database"])
def test_a_damaged_database_answers_503_everywhere_and_works_again_when_it_is_whole(
    service: Service, kept: int
) -> None:
    before = overwrite(service, b"")
    overwrite(service, before[:kept])

    assert_unavailable(service)

    overwrite(service, before)
    assert service.upload().status_code == 201
    assert service.http.get("/readyz").status_code == 200


@postgres_only
def test_a_server_that_lets_nobody_in_answers_503_everywhere_and_works_again_when_it_does(
    own_service: Service,
) -> None:
    url = own_service.settings.resolved_database_url
    name = make_url(url).database
    administration = str(make_url(SERVER).render_as_string(hide_password=False))
    command(
        administration,
        f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false',
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    try:
        assert_unavailable(own_service)
    finally:
        command(administration, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert own_service.upload().status_code == 201
    assert own_service.http.get("/readyz").status_code == 200


def assert_unavailable(service: Service) -> None:
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
