"""`charsmith keys` beside a running service, and commands that show a key."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.store.key_text import parse_key
from tests.api.service import Service
from tests.databases import SERVER, sqlite_only


def charsmith(service: Service, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command, on the folder of the service, which it finds by its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHARSMITH_")}
    told = {"CHARSMITH_DATA_DIR": str(service.settings.data_dir), "CHARSMITH_PORT": str(service.address[1])}
    if SERVER:
        told["CHARSMITH_DATABASE_URL"] = service.settings.resolved_database_url
    command = [sys.executable, "-m", "app.cli", *arguments]
    environment = kept | told | ({"CHARSMITH_API_KEY": key} if key else {})
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def made(service: Service, *arguments: str) -> str:
    """A key of the command's making, which it prints alone, so that a script can take it."""
    done = charsmith(service, "keys", "create", *arguments)
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    assert parse_key(key) is not None
    assert key not in done.stderr
    return key


def test_a_key_is_made_used_listed_and_revoked_while_the_service_runs(own_service: Service) -> None:
    first = charsmith(own_service, "keys", "create", "laptop")
    assert "first key" in first.stderr
    laptop = first.stdout.strip()
    second = made(
        own_service, "ci", "--scope", "read", "--max-queued-jobs", "3", "--max-streams", "2", "--expires-days", "30"
    )

    assert charsmith(own_service, "models", "--json", key=laptop).stdout == ""
    another = second[:-1] + ("b" if second.endswith("a") else "a")
    for key, told in ((None, "set CHARSMITH_API_KEY"), (another, "unknown, revoked or expired")):
        refused = charsmith(own_service, "models", key=key)
        assert refused.returncode == 1
        assert told in refused.stderr

    listed = charsmith(own_service, "keys", "list").stdout
    assert "laptop" in listed
    assert "generate, read, train" in listed
    lines = charsmith(own_service, "keys", "list", "--json").stdout.splitlines()
    documents: list[dict[str, Any]] = [json.loads(line) for line in lines]
    ci = documents[0]
    assert (ci["name"], ci["scopes"], ci["max_queued_jobs"], ci["max_streams"]) == ("ci", ["read"], 3, 2)
    created, expires = (datetime.fromisoformat(ci[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=30)
    for key in (laptop, second):
        parts = parse_key(key)
        assert parts is not None
        assert parts.secret not in listed + json.dumps(documents)

    assert charsmith(own_service, "keys", "revoke", "laptop").returncode == 0
    assert charsmith(own_service, "models", key=laptop).returncode == 1
    assert charsmith(own_service, "keys", "revoke", ci["id"], "--json").returncode == 0
    again = charsmith(own_service, "keys", "revoke", "ci")
    assert (again.returncode, again.stderr) == (1, "charsmith: no key 'ci'\n")
    assert [line.split()[2] for line in charsmith(own_service, "keys", "list").stdout.splitlines()[1:]] == [
        "revoked"
    ] * 2


def test_a_key_without_the_scope_is_told_which_it_needs(own_service: Service) -> None:
    key = made(own_service, "reader", "--scope", "read")
    refused = charsmith(own_service, "generate", "nobody", key=key)
    assert refused.returncode == 1
    assert "scope admin or generate; yours has read" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "a b"), "a name is 1 to 64 of"),
        (("create", "ci", "--scope", "write"), "'write' is none of read, generate, train, admin"),
        (("create", "ci", "--max-streams", "0"), "max-streams"),
        (("create", "ci", "--expires-days", "0"), "expires-days"),
        (("revoke", "nobody"), "no key 'nobody'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(own_service: Service, arguments: tuple[str, ...], told: str) -> None:
    done = charsmith(own_service, "keys", *arguments)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert own_service.http.get("/models").is_success, "no key was made"


@sqlite_only
def test_listing_makes_no_database_and_names_the_one_that_is_missing(own_service: Service, tmp_path: Any) -> None:
    done = charsmith(own_service, "keys", "list", "--data-dir", str(tmp_path / "elsewhere"))
    assert done.returncode == 1
    assert "there is no database" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_the_commands_start_without_the_store(own_service: Service) -> None:
    """It takes as long to import as all the rest."""
    code = "import sys, app.cli; print([m for m in ('torch', 'sqlalchemy', 'fastapi') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
