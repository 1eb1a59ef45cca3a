"""What a page links to is there: files of the repository, and headings of pages."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT, pages

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / page).read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(page: str) -> Iterator[str]:
    for target in LINK.findall((ROOT / page).read_text()):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    for target in links_of(page):
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(str(path.resolve().relative_to(ROOT))), f"{page}: {target}"


def test_every_page_can_be_found_from_the_readme() -> None:
    found, left = set(), ["README.md"]
    while left:
        page = left.pop()
        if page in found:
            continue
        found.add(page)
        for target in links_of(page):
            path = ((ROOT / page).parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md":
                left.append(str(path.relative_to(ROOT)))
    assert set(pages()) <= found
