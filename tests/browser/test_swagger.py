"""Swagger UI in a real Chromium, without a network: a person clicks from a text to a text.

Screenshots lie in pytest's temporary folder; `pytest tests/browser --basetemp=FOLDER` says where.
"""

from pathlib import Path

import pytest

from tests.browser.docs_page import DocsPage
from tests.system.harness import TEXT, wait_for

pytestmark = pytest.mark.system

JOB_SECONDS = 240.0
"""The job takes 12 s of training and what a busy machine takes to start it."""
EXAMPLE_CHARACTERS = 500
"""What the filled-in requests for a text ask for."""


def test_a_person_clicks_from_a_text_to_what_its_model_writes(docs: DocsPage, tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(TEXT)
    docs.choose_file("upload_corpus", tmp_path / "play.txt")
    assert '"name": "shakespeare"' in docs.execute("upload_corpus").inner_text()
    docs.photograph("upload_corpus")

    docs.execute("create_job")
    docs.photograph("create_job")
    docs.click_execute("follow_job")  # ends with the job; the page works on meanwhile
    wait_for("the job", lambda: '"status": "succeeded"' in docs.execute("get_job").inner_text(), JOB_SECONDS)
    docs.photograph("get_job")
    assert "event: checkpoint" in docs.shown("follow_job").inner_text()
    docs.photograph("follow_job")

    docs.execute("get_loss_png")
    assert docs.picture_width("get_loss_png") > 0
    docs.photograph("get_loss_png")
    for name in ("generate", "generate_by_query"):
        docs.execute(name)
        # How well it writes after a few seconds is the machine's to say; on a busy one they are a few steps.
        written = docs.shown_text(name)
        assert len(written) == EXAMPLE_CHARACTERS
        assert set(written) <= set(TEXT)
        docs.photograph(name)
    assert '"perplexity": ' in docs.execute("score").inner_text()
    docs.photograph("score")
    for name in ("download_corpus", "download_model"):
        assert docs.execute(name).get_by_text("Download file").is_visible()

    assert docs.complaints == []
    assert docs.strangers() == []


def test_the_page_and_all_its_parts_come_from_the_service(docs: DocsPage) -> None:
    docs.photograph("upload_corpus")

    assert docs.complaints == []
    assert docs.strangers() == []
    assert {Path(address).suffix for address in docs.answers} == {"", ".css", ".js", ".png", ".json"}, "the favicon too"
    assert set(docs.answers.values()) == {200}, docs.answers
