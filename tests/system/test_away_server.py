"""A PostgreSQL server that is away for longer than a lease: all wait for it, nothing is lost and nothing done twice."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import make_url

from tests.databases import SERVER, command, postgres_only
from tests.system.harness import Installation, wait_for

pytestmark = [pytest.mark.system, postgres_only]

AWAY_SECONDS = 6.0
"""Twice a lease."""


@contextmanager
def closed(url: str) -> Iterator[None]:
    """Everybody is cut off, and nobody let in."""
    name, administration = make_url(url).database, make_url(SERVER).render_as_string(hide_password=False)
    leave = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    try:
        command(administration, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false', leave)
        yield
    finally:
        command(administration, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_job_goes_on_when_its_server_is_back_in_the_same_attempt_and_to_the_bit(installation: Installation) -> None:
    installation.start_api()
    worker = installation.start("worker")
    installation.upload()
    undisturbed = installation.wait_for_status(installation.submit(steps=300)["id"], "succeeded")
    job = installation.submit(steps=300)
    installation.wait_for_step(job["id"], 20)
    with closed(installation.database_url):
        time.sleep(AWAY_SECONDS)
    done = installation.wait_for_status(job["id"], "succeeded")
    assert done["attempt"] == 1, installation.logs()
    assert worker.poll() is None
    assert installation.weights(done, 300) == installation.weights(undisturbed, 300)
    assert installation.losses(job["id"]) == installation.losses(undisturbed["id"])


def test_clients_are_told_to_come_back_and_a_follower_misses_nothing(installation: Installation) -> None:
    installation.start_api()
    installation.start("worker")
    installation.upload()
    job = installation.submit(steps=100_000)
    installation.wait_for_step(job["id"], 20)
    with installation.http.stream("GET", f"/jobs/{job['id']}/events", timeout=60) as follower:
        lines = follower.iter_lines()
        told = [next(lines)]
        with closed(installation.database_url):
            refused = installation.http.get("/jobs")
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            wait_for(
                "the listener to notice", lambda: installation.has_said("no news of jobs can be listened for") or None
            )
        assert installation.http.post(f"/jobs/{job['id']}/cancel").is_success
        told += lines  # the very stream of before, to its end
    ids = [line for line in told if line.startswith("id: ")]
    assert '"status":"cancelled"' in "".join(told).replace(" ", "")
    whole = installation.http.get(f"/jobs/{job['id']}/events").text.splitlines()
    assert ids == [line for line in whole if line.startswith("id: ")]
