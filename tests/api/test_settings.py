"""Settings: what the environment may say, and that docs/settings.md says the same."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

import models
from app.server import check_open_by_choice
from app.settings import Settings, SettingsError, load_settings, variable_name
from app.store.api_keys import Scope, create_key, revoke_key
from app.store.database import Database
from app.store.opening import open_database

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "settings.md"
COMPOSE = ROOT / "docker-compose.yml"
FIXED_IN_CONTAINERS = {"executor", "data_dir", "database_url", "host", "port", "allow_anonymous"}
FOR_COMMANDS = {"api_key"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CHARSMITH_"):
            monkeypatch.delenv(name)


def test_without_variables_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()

    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/charsmith-data/charsmith.db"
    assert settings.temporary_dir == Path("charsmith-data/tmp")


def test_variables_and_flags_are_read_flags_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARSMITH_PORT", "9000")
    monkeypatch.setenv("CHARSMITH_HOST", "::1")
    monkeypatch.setenv("CHARSMITH_CORS_ORIGINS", "https://A.example, http://b.example:80, http://[::1]:3000")
    monkeypatch.setenv("CHARSMITH_ALLOWED_HOSTS", "Char.Example,my-machine")
    monkeypatch.setenv("CHARSMITH_DATABASE_URL", "")  # as docker compose passes an unset variable
    settings = load_settings(port=9001, host=None)

    assert (settings.port, settings.host, settings.database_url) == (9001, "::1", None)
    assert settings.cors_origins == ("https://a.example", "http://b.example", "http://[::1]:3000"), "as browsers say it"
    assert settings.allowed_hosts == ("char.example", "my-machine")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "x"),
        ("PORT", "65536"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "0"),
        ("STALL_SECONDS", "inf"),
        ("ALLOW_ANONYMOUS", "perhaps"),
        ("MAX_CORPUS_BYTES", "1GB"),
        ("DEVICE", "tpu"),
        ("CORS_ORIGINS", "example.org"),
        ("CORS_ORIGINS", "https://example.org/path"),
        ("CORS_ORIGINS", "https://example.org/"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://*.example.org"),
        ("CORS_ORIGINS", "https://a@example.org"),
        ("CORS_ORIGINS", "ftp://example.org"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "https://example.org:99999"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "*.example.org"),
        ("ALLOWED_HOSTS", "example.org:8000"),
        ("ALLOWED_HOSTS", "https://example.org"),
        ("ALLOWED_HOSTS", "example.org/path"),
        ("ALLOWED_HOSTS", "a b"),
        ("LOG_LEVEL", "loud"),
        ("TORCH_THREADS", "0"),
    ],
)
def test_a_malformed_variable_stops_the_start_naming_itself(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"CHARSMITH_{name}", value)

    with pytest.raises(SettingsError, match=f"CHARSMITH_{name}"):
        load_settings()


@pytest.mark.parametrize("name", ["CHARSMITH_PROT", "charsmith_prot"])
def test_an_unknown_variable_stops_the_start_naming_itself(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")

    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_is_documented_with_its_default() -> None:
    rows = {
        cells[0].strip("` "): cells[1].strip("` ")
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| `CHARSMITH_") and (cells := line.strip("|").split("|"))
    }

    assert list(rows) == [variable_name(field) for field in Settings.model_fields]
    for field, info in Settings.model_fields.items():
        default = "" if info.default in (None, ()) else str(info.default).lower()
        assert rows[variable_name(field)].lower() == default, field


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Database]:
    """The database of the settings' folder, to make keys in."""
    with closing(open_database(Settings(data_dir=tmp_path).resolved_database_url)) as database:
        yield database


ELSEWHERE = ["0.0.0.0", "::", "192.168.0.1", "example.org"]


@pytest.mark.parametrize("host", ELSEWHERE)
def test_without_keys_only_loopback_is_listened_on_unless_it_is_meant(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CHARSMITH_ALLOW_ANONYMOUS"):
        check_open_by_choice(Settings(host=host, data_dir=tmp_path))
    check_open_by_choice(Settings(host=host, data_dir=tmp_path, allow_anonymous=True))


def test_a_key_that_somebody_could_show_opens_other_addresses_and_no_other_does(keys: Database, tmp_path: Path) -> None:
    elsewhere = Settings(host="0.0.0.0", data_dir=tmp_path)
    revoked, _ = create_key(keys, "revoked", frozenset(Scope))
    revoke_key(keys, revoked.id)
    create_key(keys, "expired", frozenset(Scope), lifetime=timedelta(microseconds=1))
    with pytest.raises(SettingsError, match="no API key that is valid"):
        check_open_by_choice(elsewhere)
    create_key(keys, "valid", frozenset(Scope))
    check_open_by_choice(elsewhere)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_permission(host: str, tmp_path: Path) -> None:
    check_open_by_choice(Settings(host=host, data_dir=tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists(), "nor a look into the database"


def test_an_api_key_is_checked_for_its_form_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"csk_{'a' * 16}_{'b' * 32}"
    monkeypatch.setenv("CHARSMITH_API_KEY", key)
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == key
    assert key not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"

    monkeypatch.setenv("CHARSMITH_API_KEY", key[:-1])
    with pytest.raises(SettingsError, match="CHARSMITH_API_KEY") as refused:
        load_settings()
    assert "bbb" not in str(refused.value)


def test_the_service_imports_neither_torch_nor_matplotlib_nor_the_worker() -> None:
    """They cost a second and hundreds of megabytes, which the service is to be without."""
    code = "import sys, app.server; print([m for m in ('torch', 'matplotlib', 'worker') if m in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_compose_passes_every_setting_on_that_a_container_does_not_fix() -> None:
    ours = FIXED_IN_CONTAINERS | FOR_COMMANDS
    passed = set(re.findall(r"^  (CHARSMITH_\w+): \$\{\1:-\}$", COMPOSE.read_text(), re.MULTILINE))

    assert passed == {variable_name(field) for field in Settings.model_fields if field not in ours}


def test_compose_asks_for_no_variable_that_would_keep_the_commands_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exported for compose, they are in the shell that calls `charsmith` as well."""
    for name in re.findall(r"\$\{(\w+)", COMPOSE.read_text()):
        monkeypatch.setenv(name, "")

    assert load_settings() == Settings()


def test_settings_that_are_empty_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(variable_name(field), "")

    assert load_settings() == Settings.model_construct()


@pytest.mark.parametrize("told", ["/somewhere", ""])
def test_compiled_functions_lie_where_numba_is_told_or_beside_their_sources(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", told)
    beside = Path(models.__file__).parent / "__pycache__"
    assert load_settings().compiled_dir == (Path(told) if told else beside)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert load_settings().compiled_dir == (Path(told) if told else Path("charsmith-data/tmp/compiled"))
