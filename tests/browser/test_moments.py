"""The page when answers come late, in another order, or not at all: what is shown is what was asked for last."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import CHROMIUM, SIZE
from tests.system.harness import TEXT, Installation, wait_for

pytestmark = pytest.mark.system

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Locator, Page, Route, expect  # noqa: E402 - where it is installed

from tests.browser.web_page import WebPage  # noqa: E402

LARGE_SEED = 2**53 + 1
"""A number of JavaScript would be one less."""
NAMES = ("first", "second")


@pytest.fixture(scope="module", autouse=True)
def trained(fresh: Installation) -> Installation:
    """With two finished trainings, and so two models."""
    fresh.upload(TEXT, "text")
    request = {"corpus": "text", "model": {"hidden_size": 16}, "training": {"steps": 20, "batch_size": 8}}
    for name in NAMES:
        job = fresh.http.post("/jobs", json=request | {"name": name}).raise_for_status().json()
        fresh.wait_for_status(job["id"], "succeeded", seconds=240)
    return fresh


def job_id(installation: Installation, name: str) -> str:
    return str(installation.http.get(f"/jobs/{name}").json()["id"])


class Held:
    """Requests of one kind, which the service gets when it is told."""

    def __init__(self, shown: WebPage, address: str, method: str = "GET") -> None:
        self._page, self._method, self.routes = shown.page, method, list[Route]()
        self._open = False
        self._page.route(re.compile(address), self._hold)

    def _hold(self, route: Route) -> None:
        if self._open or route.request.method != self._method:
            return route.continue_()
        self.routes.append(route)

    def wait(self, number: int = 1) -> None:
        """Until so many were asked for."""
        self.wait_for(lambda _: len(self.routes) >= number)

    def wait_for(self, wanted: Callable[[Route], bool]) -> None:
        """Until the last one that was asked for is such a one. The page's messages are read meanwhile."""
        for _ in range(300):
            if self.routes and wanted(self.routes[-1]):
                return
            self._page.wait_for_timeout(100)
        raise AssertionError(f"{len(self.routes)} requests were made, none of them the one that was waited for")

    def let_go(self) -> None:
        self._open = True
        for route in self.routes:
            route.continue_()
        settle(self._page)


def settle(page: Page) -> None:
    """Whatever the page would do about the answers that are on their way, it has done: another one has come since."""
    page.evaluate("() => fetch('healthz').then(() => new Promise((done) => setTimeout(done)))")


def asked_for(shown: WebPage, part: str) -> list[str]:
    return [address for address in shown.answers if part in address]


def choose(shown: WebPage, name: str) -> Locator:
    """A model, in the part of the page that writes."""
    part = shown.page.get_by_role("region", name="Write", exact=True)
    option = shown.page.locator("#write-model option", has_text=re.compile(f"^{name}"))
    expect(option).to_have_count(1)
    part.get_by_label("Model", exact=True).select_option(option.get_attribute("value"))
    return part


def written_with(shown: WebPage, name: str, prompt: str = TEXT[:10], characters: int = 200) -> None:
    shown.open("Write")
    choose(shown, name)
    shown.page.get_by_label("Prompt", exact=True).fill(prompt)
    shown.page.get_by_label("Characters", exact=True).fill(str(characters))
    shown.button("Write").click()
    expect(shown.button("Continue")).to_be_enabled()


def test_of_two_trainings_the_one_that_was_clicked_last_is_shown_and_followed(
    shown: WebPage, trained: Installation
) -> None:
    first, second = (job_id(trained, name) for name in NAMES)
    late = Held(shown, f"/jobs/{first}$")
    shown.open("Runs")
    for name in NAMES:
        shown.page.get_by_role("link", name=name, exact=True).click()
    expect(shown.page.locator("#run-name")).to_have_text("second")
    late.let_go()
    expect(shown.page.locator("#run-name")).to_have_text("second")
    assert asked_for(shown, f"{first}/events") == []
    assert len(asked_for(shown, f"{second}/events")) == 1


def test_a_training_that_comes_when_another_part_is_shown_is_not_followed(
    shown: WebPage, trained: Installation
) -> None:
    first = job_id(trained, "first")
    late = Held(shown, f"/jobs/{first}$")
    shown.open("Runs")
    shown.page.get_by_role("link", name="first", exact=True).click()
    late.wait()
    shown.open("Write")
    late.let_go()
    assert asked_for(shown, f"{first}/events") == []
    shown.open("Runs")
    shown.page.get_by_role("link", name="first", exact=True).click()
    expect(shown.page.locator("#run-name")).to_have_text("first")


def test_the_checkpoints_are_those_of_the_model_that_was_chosen_last(shown: WebPage, trained: Installation) -> None:
    shown.open("Write")
    choose(shown, "first")
    model = trained.http.get("/models/second").json()["id"]
    late = Held(shown, f"/models/{model}/checkpoints")
    choose(shown, "second")
    late.wait()
    choose(shown, "first")
    for route in late.routes:
        route.fulfill(json={"data": [{"step": 4711, "val_loss": 1.0, "corrupted": False}]})
    settle(shown.page)
    expect(shown.page.locator("#write-checkpoint option", has_text="step 20")).to_have_count(1)
    expect(shown.page.locator("#write-checkpoint option", has_text="step 4,711")).to_have_count(0)


def test_what_a_character_of_the_last_text_might_have_been_is_not_told_beside_the_next(shown: WebPage) -> None:
    written_with(shown, "first")
    late = Held(shown, "/score$", "POST")
    shown.page.locator("#written").focus()
    shown.page.keyboard.press("Home")
    late.wait()
    shown.button("Write").click()
    expect(shown.page.locator("#status")).to_contain_text("as many characters")
    late.let_go()
    expect(shown.page.locator("#written-else")).to_contain_text("Click a character of the text")


def test_a_key_that_is_held_down_asks_about_the_character_where_it_stops(shown: WebPage) -> None:
    written_with(shown, "first")
    scores = Held(shown, "/score$", "POST")
    shown.page.locator("#written").focus()
    for _ in range(30):
        shown.page.keyboard.press("ArrowRight")
    scores.wait_for(lambda route: len(json.loads(route.request.post_data or "")["text"]) == 30)
    assert len(scores.routes) < 5
    scores.let_go()
    expect(shown.page.locator("#written-else")).to_contain_text(re.compile("had .* a surprise of"))


def test_who_writes_while_a_text_comes_is_told_of_the_new_one(shown: WebPage) -> None:
    shown.open("Write")
    choose(shown, "first")
    characters = shown.page.get_by_label("Characters", exact=True)
    characters.fill("1000000")
    shown.button("Write").click()
    wait_for("some text", lambda: len(shown.written()) > 100 or None)
    characters.fill("50")
    shown.button("Write").click()
    wait_for("the new text", lambda: len(shown.written()) == 50 or None)
    expect(shown.page.locator("#status")).to_contain_text("as many characters")


@pytest.mark.parametrize(("status", "goes_on_by"), [(503, "continue_from"), (422, "continue_from"), (404, "prompt")])
def test_a_refusal_to_go_on_loses_no_text(shown: WebPage, status: int, goes_on_by: str) -> None:
    page = shown.page
    page.get_by_role("link", name="Write", exact=True).click()
    page.get_by_text("More", exact=True).click()
    page.get_by_label(re.compile("^Stop at")).fill("QQQ")
    written_with(shown, "first")
    before = shown.written()
    refused = Held(shown, "/generate$", "POST")
    shown.button("Continue").click()
    refused.wait()
    refused.routes[0].fulfill(status=status, json={"title": "no", "detail": "not now"})
    expect(page.get_by_role("alert")).to_contain_text("not now")
    assert shown.written() == before

    shown.button("Continue").click()
    refused.wait(2)
    assert goes_on_by in json.loads(refused.routes[1].request.post_data or "")
    del refused.routes[0]
    refused.let_go()
    wait_for("the rest", lambda: len(shown.written()) == len(before) + 200 or None)


def test_a_character_that_the_model_does_not_read_is_told_to_be_one(shown: WebPage) -> None:
    shown.open("Write")
    shown.page.get_by_text("More", exact=True).click()
    shown.page.get_by_label(re.compile("^Leave out characters of the prompt")).check()
    for prompt, presses in (("9€9", 2), ("€9", 1)):
        written_with(shown, "first", prompt)
        shown.page.locator("#written").focus()
        for _ in range(presses):
            shown.page.keyboard.press("ArrowRight")
        expect(shown.page.locator("#written-else")).to_contain_text("does not read €")
    expect(shown.page.get_by_role("alert")).to_be_hidden()


def test_a_key_that_is_no_longer_valid_is_asked_for_when_the_person_acts_not_before(
    shown: WebPage, trained: Installation
) -> None:
    page = shown.page
    job = trained.http.get("/jobs/second").json() | {"status": "running", "progress": {"fraction": 0.5, "step": 1}}
    valid, asked = True, 0

    def answer(route: Route) -> None:
        nonlocal asked
        asked += 1
        if valid:
            route.fulfill(json={"data": [job], "next": None})
        else:
            route.fulfill(status=401, json={"title": "Unauthorized", "detail": "a key is needed"})

    page.route(re.compile(r"/jobs\?"), answer)
    page.clock.install()
    page.reload()
    shown.open("Runs")
    expect(page.get_by_text("running 50 %")).to_be_visible()
    valid = False
    page.clock.run_for(2_000)
    expect(page.locator("#status")).to_contain_text("asks for another key")
    before = asked
    page.clock.run_for(60_000)
    assert asked == before
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("alert")).to_be_hidden()
    shown.open("Texts")
    shown.open("Runs")
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()


def test_a_look_at_the_list_every_two_seconds_leaves_the_person_where_he_is(
    shown: WebPage, trained: Installation
) -> None:
    page = shown.page
    job = trained.http.get("/jobs/second").json() | {"status": "running", "progress": {"fraction": 0.5, "step": 1}}
    asked: list[Any] = []

    def answer(route: Route) -> None:
        asked.append(job["progress"]["fraction"])
        job["progress"]["fraction"] += 0.01
        route.fulfill(json={"data": [job], "next": None})

    page.route(re.compile(r"/jobs\?"), answer)
    page.set_viewport_size({"width": 900, "height": 400})
    shown.open("Runs")
    link = page.get_by_role("link", name="second", exact=True)
    link.click()
    expect(page.locator("#run-curve canvas")).to_be_visible()
    link.focus()
    page.evaluate("scrollTo(0, 0)")
    seen = len(asked)
    for _ in range(100):
        if len(asked) >= seen + 2:
            break
        page.wait_for_timeout(100)
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.activeElement.textContent") == "second"


def test_a_training_that_is_gone_is_told_beside_the_list_of_those_that_are_there(
    shown: WebPage, trained: Installation
) -> None:
    shown.page.goto(f"{trained.url}/#runs/job_{'a' * 26}")
    shown.page.reload()
    expect(shown.page.get_by_role("alert")).to_contain_text("no job")
    expect(shown.page.get_by_role("link", name="second", exact=True)).to_be_visible()


def test_a_service_that_is_away_for_a_moment_is_asked_again(shown: WebPage, trained: Installation) -> None:
    job = trained.http.get("/jobs/second").json()
    events = Held(shown, f"/jobs/{job['id']}/events")
    shown.open("Runs")
    shown.page.get_by_role("link", name="second", exact=True).click()
    events.wait()
    events.routes[0].fulfill(status=503, json={"title": "away", "detail": "away"}, headers={"Retry-After": "1"})
    events.wait(2)
    expect(shown.page.get_by_role("alert")).to_be_hidden()
    del events.routes[0]
    events.let_go()
    expect(shown.page.locator("#status")).to_contain_text("is there again")


def test_seeds_beyond_the_numbers_of_javascript_stay_what_they_are(shown: WebPage) -> None:
    page = shown.page
    shown.open("Train")
    page.get_by_text("All settings").first.click()
    for name, value in (("seed", f"00{LARGE_SEED}"), ("steps", "2"), ("hidden size", "8")):
        page.get_by_label(name, exact=True).fill(value)
    expect(page.locator("#train-details summary")).to_have_text("All settings (3 given)")
    page.get_by_text("All settings").first.click()  # what is closed counts all the same
    with page.expect_request(lambda request: request.method == "POST") as sent:
        shown.button("Start training").click()
    assert json.loads(sent.value.post_data or "")["training"] == {"seed": LARGE_SEED, "steps": 2}
    expect(page.locator("#status")).to_contain_text("is queued")
    expect(page.locator("#run-settings")).to_contain_text(str(LARGE_SEED))

    shown.open("Write")
    choose(shown, "first")
    page.get_by_label("Seed", exact=True).fill(str(2**63))
    shown.button("Write").click()
    expect(page.get_by_role("alert")).to_contain_text("from 0 to 9223372036854775807")


def test_a_number_that_is_none_is_told_not_passed_over(shown: WebPage) -> None:
    shown.open("Train")
    shown.page.get_by_text("All settings").first.click()
    shown.page.get_by_label("hidden size", exact=True).press_sequentially("1e")
    shown.button("Start training").click()
    expect(shown.page.get_by_role("alert")).to_contain_text("hidden size must be a number")


def test_the_link_to_the_content_leads_there(shown: WebPage) -> None:
    shown.open("Write")
    shown.page.get_by_role("link", name="To the content").focus()
    shown.page.keyboard.press("Enter")
    assert shown.page.evaluate("[location.hash, document.activeElement.id]") == ["#write", "content"]
    expect(shown.page.get_by_role("region", name="Write", exact=True)).to_be_visible()


@pytest.mark.parametrize("name", ["constructor", "toString", "%", "runs/%"])
def test_an_address_that_nobody_made_shows_something(shown: WebPage, trained: Installation, name: str) -> None:
    shown.page.goto(f"{trained.url}/#{name}")
    shown.page.reload()
    expect(shown.page.locator("main > section:visible")).to_have_count(1)


def test_a_word_is_dragged_into_a_field_and_a_file_is_not(shown: WebPage) -> None:
    prevented = """kind => {
        const data = new DataTransfer();
        if (kind === "Files") data.items.add(new File(["x"], "x.txt")); else data.setData("text/plain", "word");
        const event = new DragEvent("dragover", {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector("#write-prompt").dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    shown.open("Write")
    assert shown.page.evaluate(prevented, "text/plain") is False
    assert shown.page.evaluate(prevented, "Files") is True


def test_who_waits_for_a_worker_that_is_not_there_is_told_and_keys_keep_the_focus(
    chromium: Any, tmp_path: Path
) -> None:
    (tmp_path / "lonely").mkdir()
    made = Installation(tmp_path / "lonely")
    try:
        made.start_api()
        made.upload()
        job = made.submit()
        page = chromium.new_page(viewport=SIZE)
        shown = WebPage(page, f"{made.url}/#runs/{job['id']}", tmp_path / "screenshots")
        expect(page.get_by_text("no worker is there to train it")).to_be_visible()
        shown.photograph("no-worker")
        shown.button("Pause").focus()
        page.keyboard.press("Enter")
        shown.expect_status("paused")
        expect(shown.button("Resume")).to_be_focused()
        expect(page.get_by_text("no worker is there to train it")).to_be_hidden()
        page.close()
    finally:
        made.close()


def test_losses_of_any_size_are_told(shown: WebPage, trained: Installation) -> None:
    """A training that diverged is looked at for just that."""
    huge = 122481583834791950
    job = trained.http.get("/jobs/second").json()
    job["progress"] |= {"train_loss": huge, "val_loss": 1e300}
    job |= {"status": "failed", "error": {"code": "diverged", "detail": "at step 3"}}
    row = {"step": 3, "train_loss": huge, "val_loss": 1e300, "learning_rate": 1, "seconds": 1}
    shown.page.route(re.compile(f"/jobs/{job['id']}$"), lambda route: route.fulfill(json=job))
    shown.page.route(re.compile(f"/jobs/{job['id']}/metrics$"), lambda route: route.fulfill(json={"data": [row]}))
    shown.open("Runs")
    shown.page.get_by_role("link", name="second", exact=True).click()
    expect(shown.page.locator("#run-error")).to_contain_text("diverged")
    expect(shown.page.locator("#run-numbers")).to_contain_text("lstm")
    shown.page.get_by_role("checkbox", name="Compare first", exact=True).check()
    expect(shown.page.locator("#run-compared").get_by_role("row")).to_have_count(3)
    expect(shown.page.get_by_role("alert")).to_be_hidden()
    assert shown.complaints == []


def test_what_is_asked_of_a_training_elsewhere_is_seen_here(shown: WebPage, trained: Installation) -> None:
    request = {"corpus": "text", "name": "endless", "model": {"hidden_size": 16}, "training": {"steps": 10**6}}
    job = trained.http.post("/jobs", json=request).raise_for_status().json()
    trained.wait_for_status(job["id"], "running", seconds=240)
    shown.open("Runs")
    shown.page.get_by_role("link", name="endless", exact=True).click()
    shown.button("Pause").click()
    shown.expect_status("paused")
    trained.http.post(f"/jobs/{job['id']}/resume").raise_for_status()
    expect(shown.page.locator("#run-status")).to_have_text("running", timeout=120_000)
    trained.http.post(f"/jobs/{job['id']}/cancel").raise_for_status()
    shown.expect_status("cancelled")


def test_a_page_that_is_loaded_anew_has_what_was_written_and_compared(shown: WebPage, trained: Installation) -> None:
    page = shown.page
    shown.open("Runs")
    page.get_by_role("link", name="second", exact=True).click()
    page.get_by_role("checkbox", name="Compare first", exact=True).check()
    expect(page.locator("#run-compared").get_by_role("row")).to_have_count(3)
    written_with(shown, "first")
    before = shown.written()
    page.reload()
    expect(page.locator("#written")).to_have_text(before)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(TEXT[:10])
    shown.button("Continue").click()
    wait_for("the rest", lambda: len(shown.written()) == len(before) + 200 + 300 or None)
    assert shown.written().startswith(before)

    shown.open("Runs")
    page.get_by_role("link", name="second", exact=True).click()
    expect(page.get_by_role("checkbox", name="Compare first", exact=True)).to_be_checked()
    expect(page.locator("#run-compared").get_by_role("row")).to_have_count(3)
