"""What is installed is not older than the versions that mended known weaknesses, and everything is pinned exactly."""

import json
import re
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from app.store.sqlite_engine import newest_sqlite, wal_is_safe
from tests.audit import judged, requirements

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
FLOORS = {
    "starlette": "1.6.0",  # CVE-2025-54121 and -62727; CVE-2026-48710, -48817, -48818, -54282, -54283; max_body_size
    "python-multipart": "0.0.31",  # CVE-2026-40347, -42561, -53537 to -53540
    "h11": "0.16.0",  # CVE-2025-43859
    "uvicorn": "0.11.7",
    "torch": "2.11",  # CVE-2025-32434, CVE-2026-24747, CVE-2026-4538
    "jinja2": "3.1.6",  # CVE-2025-27516
    "sqlalchemy": "2.1.9",
    "ray": "2.56",  # token authentication is 2.52's (CVE-2023-48022, CVE-2025-62593)
}


def numbers(of_version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", of_version.partition("+")[0]))


def pinned() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines()]
    return {name.lower(): of for name, of in (line.split("==") for line in lines if line)}


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_not_older_than_the_version_that_mended_known_weaknesses(name: str) -> None:
    assert numbers(version(name)) >= numbers(FLOORS[name])


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_pinned_is_not_older_either(name: str) -> None:
    torch = re.search(r'"torch==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert torch
    assert numbers((pinned() | {"torch": torch[1]})[name]) >= numbers(FLOORS[name])


def test_the_sqlite_in_use_keeps_every_commit() -> None:
    assert wal_is_safe(newest_sqlite().sqlite_version_info)


def test_every_dependency_is_pinned_to_one_version() -> None:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {each.name.lower(): each.version for each in distributions()}
    assert {name: of for name, of in installed.items() if pinned().get(name, of) != of} == {}


def test_an_audit_tells_weaknesses_from_packages_that_it_could_not_look_up() -> None:
    answer = {
        "dependencies": [
            {"name": "unknown", "skip_reason": "not found"},
            {"name": "sound", "version": "1", "vulns": []},
            {"name": "weak", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]},
        ]
    }
    number, found = judged(json.dumps(answer))
    assert number == 2
    assert found == ["weak 2: CVE-1, mended in ['3']"]
    with pytest.raises(ValueError):  # noqa: PT011
        judged("no connection")
    assert "torch==" in requirements()
