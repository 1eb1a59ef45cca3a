"""What a job reports: numbers as JSON and CSV, events as they happen, the curve as a picture."""

import csv
import io
import json
import math
import re
import struct
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from PIL import Image

from app.loss_curve import COLORS, Theme
from app.store import claims, jobs, recording
from app.store.api_keys import Scope, create_key, revoke_key
from app.store.claims import Claim
from app.store.job_rows import Job
from app.store.job_state import JobStatus
from app.store.metrics import write_metrics
from tests.api.service import DEADLINE_SECONDS, Service, assert_problem
from tests.system.harness import wait_for

PROGRESS: dict[str, Any] = {
    "steps": 10,
    "epoch": 0.5,
    "fraction": 0.2,
    "learning_rate": 0.004,
    "gradient_norm": 1.0,
    "characters_per_second": 9000.0,
    "seconds": 1.5,
    "eta_seconds": 6.0,
    "memory_bytes": 700_000_000,
}


@pytest.fixture
def claim(service: Service) -> Claim:
    service.enqueue()
    return service.claim()


def report(service: Service, claim: Claim, step: int, train_loss: float) -> None:
    recording.record_progress(service.database, claim, PROGRESS | {"step": step, "train_loss": train_loss})


def parsed(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The events of a stream; a comment is an event with the field `comment` alone."""
    event: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield {"comment": line[1:]}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield event
            event = {}


def follow(service: Service, job_id: str, last: str | None = None) -> list[dict[str, str]]:
    """All events of a stream, which ends by itself."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with service.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        return list(parsed(answer.iter_lines()))


def test_the_progress_of_a_job_holds_every_named_field(service: Service, claim: Claim) -> None:
    report(service, claim, 2, 2.0)
    job = service.http.get(f"/jobs/{claim.job.id}").json()
    told = ("steps", "epoch", "fraction", "characters_per_second", "eta_seconds", "memory_bytes")
    assert job["progress"] == {
        **{name: PROGRESS[name] for name in told},
        "step": 2,
        "train_loss": 2.0,
        "val_loss": None,
        "bits_per_character": 2.0 / math.log(2),
        "setbacks": 0,
        "machines": [],
    }
    assert (job["best"], job["attempt"], job["status"]) == (None, 1, "running")

    service.evaluate_and_save(claim, 2, 1.5)

    job = service.http.get(f"/jobs/{claim.job.id}").json()
    assert job["best"] == {"step": 2, "val_loss": 1.5}
    assert job["progress"]["bits_per_character"] == 1.5 / math.log(2)


def test_the_kinds_of_machine_that_trained_are_told(service: Service, claim: Claim) -> None:
    recording.record_started(service.database, claim, {"step": 0, "machines": ("old", "new")})
    assert service.http.get(f"/jobs/{claim.job.id}").json()["progress"]["machines"] == ["old", "new"]


def test_a_setback_is_shown_by_the_job_and_told_as_an_event(service: Service, claim: Claim) -> None:
    for step in (1, 2, 3):
        report(service, claim, step, 4.0 - step)
    setback = {"step": 4, "to_step": 2, "setbacks": 1, "learning_rate": 0.002, "what": "training loss"}
    recording.record_setback(service.database, claim, setback)
    claims.finish(service.database, claim, JobStatus.FAILED, {"code": "diverged", "detail": "for a test"})

    progress = service.http.get(f"/jobs/{claim.job.id}").json()["progress"]
    assert (progress["step"], progress["setbacks"]) == (2, 1)
    rows = service.http.get(f"/jobs/{claim.job.id}/metrics").json()["data"]
    assert [row["step"] for row in rows] == [1, 2]
    got = follow(service, claim.job.id)
    assert [event["event"] for event in got] == ["status", "status", *["progress"] * 3, "setback", "status"]
    told = json.loads(got[-2]["data"])
    assert told == setback | {"created_at": told["created_at"]}


def test_metrics_come_as_json_or_csv(service: Service, claim: Claim) -> None:
    for step in (1, 2, 3):
        report(service, claim, step, 4.0 - step)
    recording.record_evaluation(service.database, claim, 3, 1.25, True)
    path = f"/jobs/{claim.job.id}/metrics"

    answer = service.http.get(path)
    rows = answer.json()["data"]
    assert [(row["step"], row["train_loss"], row["val_loss"]) for row in rows] == [
        (1, 3, None),
        (2, 2, None),
        (3, 1, 1.25),
    ]
    assert {row["memory_bytes"] for row in rows} == {700_000_000}

    as_csv = service.http.get(path, headers={"Accept": "text/csv, application/json;q=0.5"})
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    table = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert list(table[0]) == list(rows[0])
    assert [{name: float(value) if value else None for name, value in row.items()} for row in table] == rows
    in_two_lines = service.http.get(path, headers=[("Accept", "image/png"), ("Accept", "text/csv")])
    assert in_two_lines.text == as_csv.text
    accepts = {"Accept": "image/png"}
    assert service.http.get(f"{path}?format=csv", headers=accepts).text == as_csv.text, "it wins over the header"
    assert service.http.get(f"{path}?format=json", headers=accepts).json()["data"] == rows
    assert "text/csv" in assert_problem(service.http.get(path, headers={"Accept": "image/png"}), 406)["detail"]


def test_a_job_without_any_number_has_empty_metrics(service: Service) -> None:
    job = service.enqueue()

    assert service.http.get(f"/jobs/{job.id}/metrics").json() == {"data": []}
    assert len(service.http.get(f"/jobs/{job.id}/metrics", headers={"Accept": "text/csv"}).text.splitlines()) == 1


def test_the_events_of_a_finished_job_come_in_order_and_then_the_stream_ends(service: Service, claim: Claim) -> None:
    report(service, claim, 1, 3.0)
    recording.record_evaluation(service.database, claim, 1, 2.5, True)
    recording.record_sample(service.database, claim, 1, "line one\nline two\r\n: é")
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)

    got = follow(service, claim.job.id)

    assert [event["event"] for event in got] == ["status", "status", "progress", "evaluation", "sample", "status"]
    data = [json.loads(event["data"]) for event in got]
    assert [item["status"] for item in (data[0], data[1], data[-1])] == ["queued", "running", "succeeded"]
    assert data[2]["train_loss"] == 3.0
    assert data[4]["text"] == "line one\nline two\r\n: é"
    assert all(item["created_at"] for item in data)
    ids = [int(event["id"]) for event in got]
    assert ids == sorted(set(ids))


def test_a_client_that_comes_back_gets_what_it_has_not_seen(service: Service, claim: Claim) -> None:
    for step in range(1, 251):  # more than one look fetches
        report(service, claim, step, 1.0)
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)
    everything = follow(service, claim.job.id)

    assert len(everything) == 253
    for seen in (0, 100, 251, 252):
        assert follow(service, claim.job.id, everything[seen]["id"]) == everything[seen + 1 :]
    assert follow(service, claim.job.id, str(2**63 - 1)) == []


@pytest.mark.parametrize("last", ["x", "-1", "1.5", str(2**63), "9" * 5000])
def test_a_last_event_id_that_is_none_is_refused(service: Service, claim: Claim, last: str) -> None:
    answer = service.http.get(f"/jobs/{claim.job.id}/events", headers={"Last-Event-ID": last})

    assert_problem(answer, 422, "last-event-id")


def test_events_arrive_while_the_job_runs(service: Service, claim: Claim) -> None:
    with service.http.stream("GET", f"/jobs/{claim.job.id}/events") as answer:
        stream = parsed(answer.iter_lines())
        assert [next(stream)["event"] for _ in range(2)] == ["status", "status"]
        report(service, claim, 1, 3.0)
        assert next(stream)["event"] == "progress"
        claims.finish(service.database, claim, JobStatus.SUCCEEDED)
        assert json.loads(next(stream)["data"])["status"] == "succeeded"
        assert list(stream) == []


def test_a_quiet_stream_says_that_it_lives(service: Service, claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    with service.http.stream("GET", f"/jobs/{claim.job.id}/events") as answer:
        assert any("comment" in event for event in parsed(answer.iter_lines()))


def test_a_stream_of_a_deleted_job_ends(service: Service) -> None:
    job = service.enqueue()
    with service.http.stream("GET", f"/jobs/{job.id}/events") as answer:
        stream = parsed(answer.iter_lines())
        assert next(stream)["event"] == "status"
        jobs.delete_job(service.database, job.id)
        assert list(stream) == []


@pytest.mark.parametrize("end", ["revoked", "expired", "first"])
def test_a_stream_ends_with_its_key(service: Service, claim: Claim, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was begun without, when the first key is made."""
    headers = {}
    if end != "first":
        key = create_key(service.database, "mine", frozenset({Scope.READ}), lifetime=timedelta(hours=1))[1]
        headers = {"Authorization": f"Bearer {key}"}
    with service.http.stream("GET", f"/jobs/{claim.job.id}/events", headers=headers) as answer:
        stream = parsed(answer.iter_lines())
        assert [next(stream)["event"] for _ in range(2)] == ["status"] * 2
        if end == "revoked":
            revoke_key(service.database, "mine")
        elif end == "expired":
            later = service.database.now() + timedelta(hours=1)
            monkeypatch.setattr(service.database, "now", lambda: later)
        else:
            create_key(service.database, "first", frozenset({Scope.READ}))
        report(service, claim, 1, 3.0)
        # One look may have been under way.
        assert [event["event"] for event in stream] in ([], ["progress"])  # no error either, and the job runs on
    assert service.http.get("/jobs", headers=headers).status_code == 401


def test_a_stream_goes_on_when_another_key_is_revoked(service: Service, claim: Claim) -> None:
    keys = {name: create_key(service.database, name, frozenset({Scope.READ}))[1] for name in ("mine", "other")}
    mine = {"Authorization": f"Bearer {keys['mine']}"}
    with service.http.stream("GET", f"/jobs/{claim.job.id}/events", headers=mine) as answer:
        stream = parsed(answer.iter_lines())
        assert [next(stream)["event"] for _ in range(2)] == ["status"] * 2
        revoke_key(service.database, "other")
        report(service, claim, 1, 3.0)
        claims.finish(service.database, claim, JobStatus.FAILED, {"code": "crashed", "detail": "for a test"})
        assert [event["event"] for event in stream] == ["progress", "status"]


def listeners() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "job-news"}


def test_nobody_listens_for_news_of_a_job_that_has_ended(own_service: Service) -> None:
    job = own_service.enqueue()
    jobs.cancel_job(own_service.database, job.id)
    before = listeners()
    for _ in range(5):
        assert follow(own_service, job.id)
        assert listeners() <= before


def test_followers_that_come_and_go_need_one_listener(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.job_news.LINGER_SECONDS", 10.0)
    job = own_service.enqueue()
    before = listeners()
    for _ in range(10):
        with own_service.http.stream("GET", f"/jobs/{job.id}/events") as answer:
            assert next(parsed(answer.iter_lines()))["event"] == "status"
            wait_for("its listener", lambda: listeners() - before or None)
    assert len(listeners() - before) == 1
    own_service.server.should_exit = True
    wait_for("nobody to listen any more", lambda: not listeners() - before or None)


def test_open_streams_end_when_the_service_stops(own_service: Service) -> None:
    job = own_service.enqueue()
    with own_service.http.stream("GET", f"/jobs/{job.id}/events") as answer:
        stream = parsed(answer.iter_lines())
        assert next(stream)["event"] == "status"
        threading.Timer(0.1, setattr, (own_service.server, "should_exit", True)).start()
        assert list(stream) == []  # no error either, and long before the deadline of reading

    assert own_service.generation.ended == "the service is shutting down"


def test_many_quiet_streams_leave_the_service_quick(service: Service, claim: Claim) -> None:
    """Streams hold no thread of the forty that plain calls share: with fifty of them open, others are served."""
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=service.http.base_url, limits=limits, trust_env=False, timeout=DEADLINE_SECONDS) as many:
        requests = [many.build_request("GET", f"/jobs/{claim.job.id}/events") for _ in range(50)]
        answers = [many.send(request, stream=True) for request in requests]
        assert {answer.status_code for answer in answers} == {200}
        assert service.http.get("/jobs").status_code == 200
        for answer in answers:
            answer.close()


def test_the_loss_curve_is_a_png_of_a_size_that_swagger_shows(service: Service, claim: Claim) -> None:
    for step in (1, 2, 3):
        report(service, claim, step, 4.0 - step)
    recording.record_evaluation(service.database, claim, 3, 1.25, True)

    answer = service.http.get(f"/jobs/{claim.job.id}/loss.png")

    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", answer.content[16:24]) == (800, 500)


def test_the_loss_curve_is_an_svg_that_marks_the_best(service: Service, claim: Claim) -> None:
    report(service, claim, 3, 1.0)
    service.evaluate_and_save(claim, 3, 1.25)

    answer = service.http.get(f"/jobs/{claim.job.id}/loss.svg")

    assert answer.headers["content-type"] == "image/svg+xml"
    assert "<!-- best: 1.250 -->" in answer.text


@pytest.mark.parametrize("image", ["loss.png", "loss.svg"])
def test_a_job_without_any_loss_has_a_picture_too(service: Service, image: str) -> None:
    job = service.enqueue()

    assert service.http.get(f"/jobs/{job.id}/{image}").status_code == 200


def png_size(answer: httpx.Response) -> tuple[int, int]:
    assert answer.headers["content-type"] == "image/png"
    width, height = struct.unpack(">II", answer.content[16:24])
    return width, height


def written_in(answer: httpx.Response) -> list[str]:
    """The texts of a drawing, which matplotlib names beside their outlines."""
    return re.findall("<!-- (.*?) -->", answer.text)


def trained(service: Service, name: str, best: float) -> Job:
    """A job with a curve; three in the queue are the most, so each ends at once."""
    job = service.enqueue(name)
    claim = service.claim()
    report(service, claim, 3, 2.0)
    service.evaluate_and_save(claim, 3, best)
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)
    return job


def test_several_jobs_lie_over_one_another_by_name_and_best(service: Service) -> None:
    first, second = trained(service, "first", 1.25), trained(service, "second", 1.5)
    unlike = trained(service, "long" * 16, 1.75)
    path, query = f"/jobs/{first.id}/loss", {"compare": [second.id, "long" * 16]}

    drawing = service.http.get(f"{path}.svg", params=query)

    texts = written_in(drawing)
    assert {"first, best: 1.250", "second, best: 1.500", "longlonglonglo…onglonglonglong, best: 1.750"} <= set(texts)
    assert unlike.id not in drawing.text
    assert not {color for color in COLORS[Theme.LIGHT].jobs[:3] if color not in drawing.text}
    width, height = png_size(service.http.get(f"{path}.png", params=query))
    assert (width, height > 500) == (800, True), "the legend lies below the curves"


def test_jobs_of_one_name_are_told_apart_by_their_ids(service: Service) -> None:
    ours = [trained(service, name, 1.5) for name in ("same", "same", "other")]

    texts = written_in(service.http.get(f"/jobs/{ours[0].id}/loss.svg", params={"compare": [j.id for j in ours[1:]]}))

    assert {f"same {ours[0].id}, best: 1.500", f"same {ours[1].id}, best: 1.500", "other, best: 1.500"} <= set(texts)


def test_a_job_that_is_named_again_is_drawn_once(service: Service) -> None:
    first, second = trained(service, "first", 1.25), trained(service, "second", 1.5)
    again = {"compare": [second.id, "second", second.id, first.id, "first"] * 4}

    texts = written_in(service.http.get(f"/jobs/{first.id}/loss.svg", params=again))

    assert [text for text in texts if "best: " in text] == ["first, best: 1.250", "second, best: 1.500"]


@pytest.mark.parametrize("image", ["loss.png", "loss.svg"])
def test_an_unknown_job_to_compare_is_named_and_so_is_one_too_many(service: Service, image: str) -> None:
    ours = [trained(service, f"job-{n}", 1.5).id for n in range(9)]
    path = f"/jobs/{ours[0]}/{image}"

    unknown = assert_problem(service.http.get(path, params={"compare": [ours[1], "nobody"]}), 404)
    assert (unknown["code"], "'nobody'" in unknown["detail"]) == ("job_not_found", True)
    assert service.http.get(path, params={"compare": ours[:8]}).status_code == 200
    assert "at most 7" in assert_problem(service.http.get(path, params={"compare": ours}), 422, "compare")["detail"]


def test_pictures_are_light_or_dark(service: Service, claim: Claim) -> None:
    report(service, claim, 3, 1.0)
    service.evaluate_and_save(claim, 3, 1.25)
    path = f"/jobs/{claim.job.id}/loss"
    light, dark = (COLORS[theme].background for theme in Theme)

    for theme in ("light", "dark"):
        picture = service.http.get(f"{path}.png?theme={theme}").content
        corner = Image.open(io.BytesIO(picture)).convert("RGB").getpixel((0, 0))
        assert corner == tuple(bytes.fromhex(COLORS[Theme(theme)].background[1:]))
    assert dark not in service.http.get(f"{path}.svg?theme=light").text
    assert light not in service.http.get(f"{path}.svg?theme=dark").text
    followed = service.http.get(f"{path}.svg").text
    assert f'@media (prefers-color-scheme: dark){{[style*="fill: {light}"]{{fill:{dark} !important}}' in followed
    ElementTree.fromstring(followed)
    assert_problem(service.http.get(f"{path}.png?theme=blue"), 422, "theme")


@pytest.mark.parametrize("theme", Theme)
def test_each_color_stands_out_from_its_background(theme: Theme) -> None:
    """By 3:1, as WCAG 2.2 asks of graphical objects (1.4.11); letters by 7:1. Compared jobs have paler trainings."""

    def luminance(color: str) -> float:
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in (b / 255 for b in bytes.fromhex(color[1:]))
        ]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(color: str) -> float:
        low, high = sorted((luminance(color), luminance(COLORS[theme].background)))
        return (high + 0.05) / (low + 0.05)

    assert min(map(contrast, (*COLORS[theme].jobs, COLORS[theme].training))) >= 3
    assert contrast(COLORS[theme].ink) >= 7


def test_a_long_history_is_drawn_without_losing_its_spikes(service: Service, claim: Claim) -> None:
    """Of 6,000 steps; the one spike among them decides how high the picture's axis is."""
    with service.database.write() as connection:
        for step in range(1, 6001):
            write_metrics(connection, claim.job.id, step, {"train_loss": 90.0 if step == 4321 else 1.0})

    drawing = service.http.get(f"/jobs/{claim.job.id}/loss.svg")

    assert "80" in written_in(drawing)
    assert len(drawing.content) < 100_000
