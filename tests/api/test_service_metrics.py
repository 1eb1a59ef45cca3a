"""What `/metrics` tells agrees with what was done."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.store import recording, workers
from app.store.errors import DatabaseBusy
from tests.api.generating import generating_service
from tests.api.service import Service, assert_problem

COUNTS = {"rows": 1, "models": 2, "loads": 3, "model_bytes": 4, "characters": 500}
DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(service: Service) -> Series:
    answer = service.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return series_of(answer.text)


def series_of(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((f"charsmith_{name}", frozenset(labels.items())))


def test_two_scrapes_count_what_was_asked_between_them(own_service: Service) -> None:
    before = scrape(own_service)
    own_service.http.get("/jobs/job_a")
    own_service.http.get("/jobs/job_b")
    own_service.http.head("/corpora")
    own_service.http.get("/nowhere")
    own_service.http.request("BREW", "/nowhere")
    after = scrape(own_service)

    def counted(method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status": status}
        return (value(after, "requests_total", **labels) or 0) - (value(before, "requests_total", **labels) or 0)

    assert counted("GET", "/jobs/{id}", "404") == 2
    assert counted("HEAD", "/corpora", "200") == 1
    assert counted("GET", "none", "404") == 1
    assert counted("GET", "/metrics", "200") == 1
    assert {dict(labels)["method"] for name, labels in after if name == "charsmith_requests_total"} == {
        "GET", "HEAD", "other"
    }  # fmt: skip
    assert value(after, "request_seconds_count", method="GET", route="/jobs/{id}") == 2


def test_a_running_job_is_told_as_its_worker_recorded_it(service: Service) -> None:
    service.enqueue("waiting")
    service.enqueue("next")
    claim = service.claim()
    progress = {"step": 5, "train_loss": 1.5, "val_loss": 1.25, "characters_per_second": 1000.0}
    recording.record_progress(service.database, claim, progress)
    series = scrape(service)

    assert value(series, "jobs", status="queued") == value(series, "jobs", status="running") == 1
    assert value(series, "jobs", status="failed") == 0
    assert value(series, "job_train_loss", job_id=claim.job.id) == 1.5
    assert value(series, "job_val_loss", job_id=claim.job.id) == 1.25
    assert value(series, "job_characters_per_second", job_id=claim.job.id) == 1000
    step_characters = claim.job.training["batch_size"] * claim.job.training["sequence_length"]
    assert value(series, "job_step_seconds", job_id=claim.job.id) == step_characters / 1000
    assert (value(series, "database_bytes") or 0) > 4096


def test_a_generation_process_that_is_not_there_leaves_its_numbers_out(service: Service) -> None:
    missing = scrape(service)
    service.generation.counted, service.generation.open_streams = COUNTS, 7
    there = scrape(service)

    assert (value(missing, "generation_up"), value(there, "generation_up")) == (0, 1)
    assert (value(missing, "characters_sampled_total"), value(there, "characters_sampled_total")) == (None, 500)
    assert value(there, "streams_open") == 7


def test_a_database_that_is_locked_leaves_its_numbers_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise DatabaseBusy(15)

    monkeypatch.setattr("app.routes.service_metrics.read_figures", fail)
    series = scrape(service)

    assert value(series, "database_up") == 0
    assert value(series, "jobs", status="queued") is None


def test_every_metric_is_documented_and_every_documented_one_is_there(own_service: Service) -> None:
    own_service.generation.counted = COUNTS
    workers.announce(own_service.database, "w1", "cpu", memory_bytes=2**34)
    text = own_service.http.get("/metrics").text
    told = set(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    listed = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENTED.read_text(), re.MULTILINE))

    assert {(name, kind) for name, kind in told if not name.endswith("_created")} == listed


def test_a_query_is_refused_as_everywhere(service: Service) -> None:
    assert_problem(service.http.get("/metrics?name=jobs"), 422)


def test_streams_are_counted_once_and_their_first_character_timed(tmp_path: Path) -> None:
    with generating_service(tmp_path) as made:
        for kind in ("text/plain", "text/event-stream", "application/json"):
            assert made.generate(kind, max_characters=300).is_success
        series = series_of(made.http.get("/metrics").text)

    assert value(series, "requests_total", method="POST", route="/generate", status="200") == 3
    assert value(series, "first_character_seconds_count") == 2, "a text as JSON has no first character"
    assert (value(series, "characters_sampled_total") or 0) >= 900
    assert value(series, "streams_queued") == 0
