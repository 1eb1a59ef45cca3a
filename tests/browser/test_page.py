"""The page at `/` in a real Chromium, without a network: from a text to what its model writes, by clicks and keys.

Screenshots lie in pytest's temporary folder; `pytest tests/browser --basetemp=FOLDER` says where.
"""

import re
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from app.store.api_keys import Scope, create_key, revoke_key
from app.store.opening import open_existing
from models.checkpoint_header import read_info
from models.onnx_file import checkpoint_of_onnx
from tests.browser.conftest import CHROMIUM, SIZE
from tests.system.harness import TEXT, Installation, wait_for

pytestmark = pytest.mark.system

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect  # noqa: E402 - where it is installed

from tests.browser.web_page import WebPage  # noqa: E402

PHONE = {"width": 360, "height": 740}
PARTS = ("Texts", "Train", "Runs", "Write", "Surprise")
OUT_OF_SIGHT = """main => [...main.querySelectorAll("button")].filter(one => one.checkVisibility())
    .filter(one => one.getBoundingClientRect().left < 0 || one.getBoundingClientRect().right > innerWidth)
    .map(one => one.textContent)"""
TINY = {"steps": "40", "hidden_size": "16", "batch_size": "8", "evaluate_every": "20"}
LONG = TINY | {"steps": "1000000"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "bottles.txt"
    path.write_text(TEXT)
    return path


def assert_content(shown: WebPage) -> None:
    assert shown.complaints == []
    assert shown.strangers() == []


def test_a_person_clicks_from_a_text_to_what_its_model_writes(shown: WebPage, text: Path) -> None:
    page = shown.page
    shown.upload(text)
    expect(page.locator("#text")).to_contain_text(f"{len(TEXT):,}")
    expect(page.locator("#text")).to_contain_text("Most frequent characters")
    shown.photograph("text")

    shown.start(**TINY)
    expect(page.locator("#run-samples article").first).to_be_visible(timeout=120_000)
    shown.expect_status("succeeded")
    expect(page.locator("#run-numbers")).to_contain_text("40 of 40")
    told = page.locator("#run-curve [role=img]").get_attribute("aria-label") or ""
    assert re.fullmatch(r"bottles: training loss \d\.\d{4}, lowest validation loss \d\.\d{4} at step \d+", told)
    assert drawn(shown) > 100
    shown.photograph("run")

    with page.expect_download() as kept:
        shown.button("Download").click()
    assert kept.value.suggested_filename == "bottles.safetensors"
    assert read_info(kept.value.path()).step == 40
    with page.expect_download() as kept:
        shown.button("Download as ONNX").click()
    assert kept.value.suggested_filename == "bottles.onnx"
    assert checkpoint_of_onnx(BytesIO(kept.value.path().read_bytes()))[0].step == 40

    shown.button("Write with it").click()
    page.get_by_label("Prompt", exact=True).fill(TEXT[:10])
    page.get_by_label("Seed", exact=True).fill("9007199254740993")  # more than a number of JavaScript can tell
    shown.button("Write").click()
    expect(shown.button("Continue")).to_be_enabled()
    expect(page.locator("#write-told")).to_contain_text("seed 9007199254740993,")
    first = shown.written()
    assert first.startswith(TEXT[:10])
    assert len(first) == 10 + 500
    shown.button("Continue").click()
    wait_for("more text", lambda: len(shown.written()) == 10 + 1000 or None)
    assert shown.written().startswith(first)
    shown.photograph("written")

    page.get_by_label("Prompt", exact=True).fill(TEXT[:10])
    shown.button("Write").click()
    wait_for("the same text", lambda: shown.written() == first or None)
    assert_content(shown)


def drawn(shown: WebPage) -> int:
    """Points of the curve's picture that are not empty."""
    count = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, n) => n % 4 === 3 && value > 0).length;
    }"""
    return int(shown.page.locator("#run-curve canvas").evaluate(count))


@pytest.fixture(scope="module")
def trained(fresh: Installation) -> Installation:
    """With a model of its own name, whatever other tests do."""
    fresh.upload(TEXT, "trained")
    job = {
        "corpus": "trained",
        "name": "trained",
        "model": {"hidden_size": 16},
        "training": {"steps": 40, "evaluate_every": 20, "batch_size": 8},
    }
    for name in ("trained", "rival"):
        answer = fresh.http.post("/jobs", json=job | {"corpus": answer_name(fresh), "name": name})
        assert answer.status_code == 202, answer.text
        fresh.wait_for_status(answer.json()["id"], "succeeded", seconds=240)
    return fresh


def answer_name(installation: Installation) -> str:
    """The same bytes have one name, whoever uploaded them first."""
    return str(installation.http.get("/corpora").json()["data"][0]["id"])


def write_with(shown: WebPage, model: str) -> None:
    part = shown.open("Write")
    option = shown.page.locator("#write-model option", has_text=re.compile(f"^{model}"))
    expect(option).to_have_count(1)
    part.get_by_label("Model", exact=True).select_option(option.get_attribute("value"))


def test_what_a_character_might_have_been_is_told_to_clicks_and_keys(trained: Installation, shown: WebPage) -> None:
    page = shown.page
    write_with(shown, "trained")
    page.get_by_label("Prompt", exact=True).fill(TEXT[:10])  # a first line that can be clicked, whatever is written
    shown.button("Write").click()
    expect(shown.button("Continue")).to_be_enabled()
    text = shown.written()
    box = page.locator("#written").bounding_box()
    assert box is not None
    page.locator("#written").click(position={"x": 60, "y": 25})
    panel = page.locator("#written-else")
    expect(panel.get_by_role("button").first).to_be_visible()
    clicked = page.evaluate("getSelection().toString()")
    assert len(clicked) == 1
    assert clicked in text.split("\n")[0]

    page.locator("#written").focus()
    page.keyboard.press("Home")
    expect(panel).to_contain_text(re.compile("had .* a surprise of"))
    page.keyboard.press("ArrowRight")
    wait_for("the second character", lambda: page.evaluate("getSelection().toString()") == text[1] or None)
    shown.photograph("alternatives")
    other = panel.locator(
        "button:enabled:not(.taken)"
    ).first  # of this character: those of the last one can't be chosen
    expect(panel.locator("button:enabled.taken")).to_have_count(1)
    other.click()
    wait_for("another text", lambda: (shown.written()[:1] == text[:1] and len(shown.written()) == 502) or None)
    assert shown.written()[1] != text[1], "the other character, and what the model makes of it"
    assert_content(shown)


def test_a_text_that_is_stopped_goes_on_where_it_was(trained: Installation, shown: WebPage) -> None:
    page = shown.page
    write_with(shown, "trained")
    page.get_by_label("Characters", exact=True).fill("1000000")
    shown.button("Write").click()
    wait_for("some text", lambda: len(shown.written()) > 100 or None)
    shown.button("Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    stopped = shown.written()
    page.get_by_label("Characters", exact=True).fill("50")
    shown.button("Continue").click()
    wait_for("the rest", lambda: len(shown.written()) == len(stopped) + 50 or None)
    assert shown.written().startswith(stopped)
    assert_content(shown)


def test_a_training_is_paused_resumed_and_cancelled_and_others_compared(
    trained: Installation, shown: WebPage, tmp_path: Path
) -> None:
    page = shown.page
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "once more\n")
    shown.upload(other)
    shown.start(**LONG)
    expect(page.locator("#run-samples article").first).to_be_visible(timeout=120_000)
    shown.button("Pause").click()
    shown.expect_status("paused")
    shown.photograph("paused")
    shown.button("Resume").click()
    shown.expect_status("running")
    shown.button("Cancel").click()
    shown.expect_status("cancelled")

    for name in ("trained", "rival"):
        page.get_by_role("checkbox", name=f"Compare {name}", exact=True).check()
    table = page.locator("#run-compared")
    expect(table.get_by_role("row")).to_have_count(1 + 3)
    assert all(
        name in (page.locator("#run-curve [role=img]").get_attribute("aria-label") or "") for name in ("other", "rival")
    )
    shown.photograph("compared")
    assert_content(shown)


def test_a_double_click_starts_one_training(shown: WebPage, fresh: Installation, tmp_path: Path) -> None:
    text = tmp_path / "twice.txt"
    text.write_text(TEXT + "twice\n")
    shown.upload(text)
    shown.button("Train on it").click()
    shown.page.get_by_text("All settings").first.click()
    shown.page.get_by_label("steps", exact=True).fill("2")
    shown.button("Start training").dblclick()
    expect(shown.page.locator("#run")).to_be_visible()
    jobs = fresh.http.get("/jobs").json()["data"]
    assert [job["name"] for job in jobs].count("twice") == 1
    assert_content(shown)


def test_a_text_is_dropped_anywhere_and_has_the_name_that_it_is_given(shown: WebPage) -> None:
    page = shown.page
    drop = """([target, names]) => {
        const data = new DataTransfer();
        for (const name of names) data.items.add(new File(["dropped and dropped again, " + name], name));
        document.querySelector(target).dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
    }"""
    page.get_by_label(re.compile("^Name, if not")).fill("a-name")
    page.evaluate(drop, ["header", ["床前明月光.txt"]])
    expect(page.get_by_role("heading", name="a-name")).to_be_visible()
    page.evaluate(drop, ["#upload", ["one.txt", "two.txt"]])
    expect(page.get_by_role("alert")).to_contain_text("One text at a time")
    assert_content(shown)


def test_a_text_is_coloured_by_surprise(trained: Installation, shown: WebPage) -> None:
    page = shown.page
    part = shown.open("Surprise")
    option = part.locator("#surprise-model option", has_text=re.compile("^trained"))
    expect(option).to_have_count(1)
    part.get_by_label("Model", exact=True).select_option(option.get_attribute("value"))
    field = part.get_by_role("textbox", name=re.compile("^Text, of at most"))
    field.fill("a" * 20_001)
    shown.button("Colour by surprise").click()
    expect(page.get_by_role("alert")).to_contain_text("At most 20,000")
    field.fill(TEXT[:40] + "€zzz")
    shown.button("Colour by surprise").click()
    expect(page.get_by_role("alert")).to_contain_text("EURO SIGN")
    part.get_by_label("Leave out characters that the model does not know").check()
    shown.button("Colour by surprise").click()
    expect(page.locator("#surprise-told")).to_contain_text("bits each")
    coloured = page.locator("#surprised")
    kept = "".join(one for one in TEXT[:40] + "€zzz" if one in TEXT)
    expect(coloured).to_have_text(kept)
    assert len({span.get_attribute("class") for span in coloured.locator("span").all()}) > 1
    coloured.focus()
    page.keyboard.press("End")
    expect(page.locator("#surprised-else")).to_contain_text(re.compile("had .* a surprise of"))
    shown.photograph("surprise")
    expect(part).to_be_visible()
    refusals = [one for one in shown.complaints if "422" not in one]
    assert refusals == []


def test_what_is_wrong_with_a_setting_is_told(shown: WebPage, text: Path) -> None:
    shown.upload(text)
    shown.button("Train on it").click()
    shown.page.get_by_label("Minutes", exact=True).fill("-1")
    shown.button("Start training").click()
    expect(shown.page.get_by_role("alert")).to_contain_text("training.minutes")
    shown.button("Close the message").click()
    expect(shown.page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(chromium: Any, trained: Installation, tmp_path: Path, scheme: str) -> None:
    page = chromium.new_page(viewport=PHONE, color_scheme=scheme)
    shown = WebPage(page, trained.url, tmp_path / "screenshots")
    for part in PARTS:
        shown.open(part)
        if part == "Runs":
            page.locator("#runs-list").get_by_role("link").first.click()
            expect(page.locator("#run-curve canvas")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], part
        assert page.locator("main").evaluate(OUT_OF_SIGHT) == [], part
        shown.photograph(f"{part}-{scheme}")
    assert_content(shown)
    page.close()


def test_every_field_and_button_has_a_name_and_can_be_reached_by_keys(trained: Installation, shown: WebPage) -> None:
    page = shown.page
    unnamed = """part => [...part.querySelectorAll("input, select, textarea, button, progress, a")]
        .filter(one => one.checkVisibility())
        .filter(one => !(one.labels?.length || one.ariaLabel || (one.matches("button, a") && one.textContent.trim())))
        .map(one => one.outerHTML)"""
    for part in PARTS:
        region = shown.open(part)
        page.wait_for_load_state("networkidle")
        for details in region.locator("details:not([open]) summary").all():
            if details.is_visible():
                details.click()
        assert region.evaluate(unnamed) == [], part
        reached = set()
        page.keyboard.press("Tab")
        for _ in range(120):
            reached.add(page.evaluate("document.activeElement.id"))
            page.keyboard.press("Tab")
        wanted = """part => [...part.querySelectorAll("input, select, textarea, button, [tabindex='0']")]
            .filter(one => one.id && one.checkVisibility() && !one.disabled).map(one => one.id)"""
        assert set(region.evaluate(wanted)) <= reached, part


def test_it_asks_for_a_key_where_one_is_needed(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "guarded").mkdir()
    made = Installation(tmp_path / "guarded")
    try:
        made.start_api()
        with closing(open_existing(made.database_url)) as database:
            key = create_key(database, "mine", frozenset(Scope))[1]
            page = chromium.new_page(viewport=SIZE)
            shown = WebPage(page, made.url, tmp_path / "screenshots")
            dialog = page.get_by_role("dialog", name="API key")
            expect(dialog).to_be_visible()
            shown.photograph("key")
            for wrong in ("csk_wrong", "ключ"):
                page.get_by_label("Key", exact=True).fill(wrong)
                shown.button("Use it").click()
                expect(dialog).to_contain_text("not valid")
                expect(page.get_by_label("Key", exact=True)).to_have_value("")
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            expect(page.get_by_text("No text yet.")).to_be_visible()
            expect(dialog).to_be_hidden()
            shown.open("Runs")
            expect(page.get_by_text("No training yet.")).to_be_visible()
            page.reload()
            expect(page.get_by_text("No training yet.")).to_be_visible()
            assert key not in page.content()

            revoke_key(database, "mine")
            shown.open("Texts")
            expect(dialog).to_contain_text("not valid")
            shown.button("Not now").click()
            expect(page.get_by_role("alert")).to_contain_text("Without a key")
            assert shown.strangers() == []
            page.close()
    finally:
        made.close()
