"""Every code block of the README and of docs/*.md runs as it stands, in order, on a real installation.

Changed are the service's address, how long a training takes (`SHORTER`), and a key for its dots, nothing else. What
cannot run in a test is listed, command by command, with the reason. A block of a language that nobody runs fails, and
so does an entry of these tables that no block needs.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.settings import load_settings
from tests.docs.blocks import ROOT, Block, BrokenFence, blocks_in, blocks_of, pages
from tests.system.harness import SMALL, Installation

pytestmark = pytest.mark.system

COMPOSE = "tests/compose/test_compose.py::"
COMPOSE_POSTGRES = "tests/compose/test_compose_postgres.py::"
COMPOSE_RAY = "tests/compose/test_compose_ray.py::"
ON_MACHINES = "needs several machines; tests/cluster/test_ray.py and test_ray_node.py start a cluster on one"
WITH_ENGINE = "needs a Docker engine; "
NOT_RUN = {
    "make demo": "installs everything; what it then starts: tests/system/test_demo.py::run_demo",
    "make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu": "downloads torch; else the same as `make demo`",
    "make test": "these very tests",
    "make serve": "`charsmith serve`, which the tests have started",
    "createdb --encoding UTF8 --template template0 charsmith": "needs a server; tests/system/test_two_services.py",
    "export CHARSMITH_DATABASE_URL=postgresql+psycopg://charsmith@127.0.0.1/charsmith": "belongs to the line before",
    "docker compose up --build --wait": WITH_ENGINE + COMPOSE + "stack",
    "docker compose logs --follow": "never ends; without --follow tests/compose/engine.py::Composed",
    "docker compose down": WITH_ENGINE + COMPOSE + "stack",
    "docker compose down --volumes": WITH_ENGINE + COMPOSE + "stack",
    "TORCH_INDEX=https://download.pytorch.org/whl/cu130 docker compose -f docker-compose.yml -f docker-compose.gpu.yml "
    "up --build --wait": "needs a GPU and NVIDIA's container toolkit beside the engine",
}
"""Commands that no test of this file runs, without their comments, and why; which test runs them, where one does."""
RUN_ELSEWHERE = {
    "docker compose exec api charsmith backup": COMPOSE
    + "test_a_backup_goes_out_of_the_containers_and_back_by_the_commands_of_the_page",
    ".venv/bin/charsmith migrate-database": "needs a server; tests/store/test_moving.py::"
    "test_the_command_of_the_page_moves_a_file_to_a_server",
    "(umask 077 && printf 'COMPOSE_FILE=docker-compose.yml:docker-compose.postgres.yml": COMPOSE_POSTGRES
    + "test_the_commands_of_the_page_start_more_workers_and_make_a_key",
    "(umask 077 && docker compose exec -T db pg_dump": COMPOSE_POSTGRES
    + "test_a_backup_goes_out_of_the_database_and_back_by_the_commands_of_the_page",
    "(umask 077 && printf 'COMPOSE_FILE=docker-compose.yml:docker-compose.ray.yml": COMPOSE_RAY
    + "test_the_commands_of_the_page_make_a_token_and_start_it",
    "export RAY_AUTH_MODE=token": ON_MACHINES,
    "limit_conn_zone": "tests/system/test_reverse_proxy.py::documented_nginx",
}
"""Blocks that another test takes from the page as they stand, by how they begin."""
SHORTER = {
    "--minutes 2": "--minutes 0.02",
    '"minutes": 2': '"minutes": 0.02',
    "--from-checkpoint mine": "--from-checkpoint mine --minutes 0.02",
    'suffix="mine")': 'suffix="mine", extra_body={"training": {"minutes": 0.02}})',
}
"""Trainings that would take minutes; all but their length is as documented."""
KEYED = ("charsmith keys", "$KEY", "$CHARSMITH_API_KEY", "csk_...\n")
"""Blocks with one of these run on an installation of their own: from the first key on, it asks everybody for one."""
WRITTEN = 300
"""How many characters the Python examples ask for."""
SHELL = ("sh", "bash")
TEXT = "To be, or not to be: The question of line {}, made up for a test.\n"
CURL = '#!/bin/sh\nexec {} --no-progress-meter --fail-with-body "$@"\n'
"""An answer that is an error fails the block; by itself curl is content with any answer."""


def text_of(lines: int) -> str:
    return "".join(TEXT.format(n) for n in range(lines))


class Desk:
    """An installation that listens, and for each page a folder with what its reader has at hand."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self._folder = folder
        self.installation = Installation(folder)
        tools = folder / "tools"
        tools.mkdir()
        (tools / "curl").write_text(CURL.format(shutil.which("curl")))
        (tools / "curl").chmod(0o755)
        path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.installation.environment |= {"PATH": path, "NO_PROXY": "127.0.0.1,localhost"}
        self._log = f"{programs[0]}-0.log"
        self.installation.start(*programs)
        self.installation.wait_until_ready(workers=int(programs[0] == "serve"))

    def folder_of(self, page: str) -> Path:
        """Blocks of a page find what earlier ones of it wrote."""
        folder = self._folder / page.replace("/", "-")
        if not folder.exists():
            folder.mkdir()
            (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
            (folder / "charsmith.log").symlink_to(self._folder / self._log)
            for name, lines in (("my.txt", 900), ("notes.txt", 800), ("other.txt", 20)):
                (folder / name).write_text(text_of(lines))
        return folder

    def have_what_the_pages_speak_of(self) -> None:
        """Corpora, jobs and a model of their names, so that each page can run without the others."""
        http = self.installation.http
        for name, lines in (("shakespeare", 700), ("mine", 900)):
            http.post("/corpora", files={"file": text_of(lines).encode()}, data={"name": name}).raise_for_status()
        training = {"steps": 40, "batch_size": 8, "evaluate_every": 20}
        request = {"corpus": "mine", "model": SMALL, "training": training}
        job = http.post("/jobs", json=request).raise_for_status().json()
        http.post("/jobs", json=request | {"name": "mine-2"}).raise_for_status()
        http.post("/jobs/mine-2/cancel").raise_for_status()
        self.installation.wait_for_status(job["id"], "succeeded")

    def run(self, page: str, *command: str, script: str = "") -> str:
        """What the command wrote; it must end well, soon."""
        done = subprocess.run(
            command,
            cwd=self.folder_of(page),
            env=self.installation.environment,
            input=script,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        said = f"{script}\n== output\n{done.stdout[-3000:]}\n== errors\n{done.stderr[-3000:]}"
        assert done.returncode == 0, f"{said}\n{self.installation.logs()}"
        return done.stdout

    def here(self, text: str) -> str:
        """The text with this desk's address, and trainings of seconds."""
        for there in ("localhost:8000", "127.0.0.1:8000"):
            text = text.replace(there, f"127.0.0.1:{self.installation.port}")
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        return text

    def settle(self) -> None:
        """Trainings that a block left behind do not keep the next one waiting."""
        for job in self.installation.http.get("/jobs?limit=100").json()["data"]:
            if job["status"] in ("queued", "running"):
                self.installation.http.post(f"/jobs/{job['id']}/cancel")
                self.installation.wait_for_status(job["id"], "cancelled", "succeeded")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"), "serve")
    made.have_what_the_pages_speak_of()
    yield made
    made.installation.close()


@pytest.fixture(scope="module")
def keyed_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("keyed"), "api")
    key = made.run("fixture", "charsmith", "keys", "create", "reader").split()[-1]
    made.installation.environment["KEY"] = key
    yield made
    made.installation.close()


def commands_of(block: Block) -> str:
    """What of a shell block can run here."""
    lines = block.text.splitlines()
    return "\n".join(line for line in lines if without_comment(line) not in NOT_RUN)


def without_comment(line: str) -> str:
    return re.sub(r"\s+#.*", "", line).strip()


def is_keyed(block: Block) -> bool:
    return any(word in block.text for word in KEYED)


def is_run_elsewhere(block: Block) -> bool:
    return block.text.startswith(tuple(RUN_ELSEWHERE))


def run_shell(desk: Desk, block: Block) -> None:
    script = re.sub(r"csk_\.\.\.(?=\s)", '"$KEY"', desk.here(commands_of(block)))
    desk.run(block.page, "bash", "-euo", "pipefail", "-s", script=script)


def run_crontab(desk: Desk, block: Block) -> None:
    """Each line as cron does: five fields of times, then a command in which a bare `%` would be a line feed."""
    for line in block.text.splitlines():
        command = line.split(maxsplit=5)[5]
        assert not re.search(r"(?<!\\)%", command)
        command = command.replace(r"\%", "%").replace("/srv/charsmith", str(desk.folder_of(block.page)))
        desk.run(block.page, "sh", "-c", command)


def run_settings(desk: Desk, block: Block) -> None:
    """Settings are known, and take the values."""
    with pytest.MonkeyPatch.context() as patch:
        before = load_settings()
        for line in block.text.splitlines():
            patch.setenv(*line.split("=", 1))
        assert load_settings() != before


def scrape(desk: Desk, block: Block) -> None:
    """What Prometheus would do with the part of its configuration: the fields are its own, and each target answers."""
    (job,) = yaml.safe_load(block.text)["scrape_configs"]
    assert job.keys() == {"job_name", "static_configs", "authorization"}
    assert job["authorization"] == {"type": "Bearer", "credentials": "csk_..."}
    for target in (target for group in job["static_configs"] for target in group["targets"]):
        headers = {"Authorization": f"Bearer {desk.installation.environment['KEY']}"}
        answer = httpx.get(f"http://{desk.here(target)}/metrics", headers=headers, trust_env=False)
        assert answer.status_code == 200
        assert any(family.name == "charsmith_jobs" for family in text_string_to_metric_families(answer.text))


RUNNERS: dict[str, Callable[[Desk, Block], None]] = {
    **dict.fromkeys(SHELL, run_shell),
    "crontab": run_crontab,
    "env": run_settings,
    "yaml": scrape,
}
"""How a block is run by itself. A page's `python` blocks are one program; `text` is output, and not run."""

EVERY = [block for page in pages() for block in blocks_of(page)]


def test_every_block_has_a_runner() -> None:
    without = [str(b) for b in EVERY if b.language not in (*RUNNERS, "python", "text") and not is_run_elsewhere(b)]

    assert not without, "say how they are run, or mark output as `text`"


@pytest.mark.parametrize("block", [b for b in EVERY if b.language in RUNNERS and not is_run_elsewhere(b)], ids=str)
def test_a_block_runs_as_it_stands(block: Block, request: pytest.FixtureRequest) -> None:
    missing = [tool for tool in ("curl", "jq") if f"{tool} " in block.text and shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    desk = request.getfixturevalue("keyed_desk" if is_keyed(block) else "desk")
    RUNNERS[block.language](desk, block)
    if not is_keyed(block):
        desk.settle()


@pytest.mark.parametrize("page", sorted({block.page for block in EVERY if block.language == "python"}))
def test_the_python_of_a_page_runs_as_it_stands(page: str, desk: Desk) -> None:
    """Its blocks are one program: later ones speak of what earlier ones made."""
    program = "\n".join(block.text for block in blocks_of(page, "python"))
    for file_format in ("safetensors", "onnx"):  # which a page's shell blocks download, if they run
        model = desk.installation.http.get(f"/models/mine/download?format={file_format}").raise_for_status().content
        (desk.folder_of(page) / f"mine.{file_format}").write_bytes(model)
    written = desk.run(page, sys.executable, "-", script=desk.here(program))
    desk.settle()

    texts = program.count("print(")
    assert WRITTEN * texts <= len(written) <= (WRITTEN + 1) * texts, "print may add a line feed"


def test_what_is_passed_over_or_shortened_is_there_and_the_tests_that_run_it_exist() -> None:
    text = "".join(block.text for block in EVERY)
    lines = {without_comment(line) for line in text.splitlines()}
    assert not NOT_RUN.keys() - lines
    assert not [long for long in SHORTER if long not in text]
    assert not [word for word in KEYED if word not in text]
    assert all(sum(block.text.startswith(begin) for block in EVERY) == 1 for begin in RUN_ELSEWHERE)
    for file, name in re.findall(r"(tests/\S+)::(\w+)", " ".join([*NOT_RUN.values(), *RUN_ELSEWHERE.values()])):
        assert re.search(rf"^(def|class) {name}\b", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_blocks_are_found_wherever_they_stand_and_broken_ones_are_refused() -> None:
    page = ["a", "```rust", "main", "", "```", "- in a list", "  ~~~sh", "  ```", "  ~~~"]
    assert [(b.line, b.language, b.text) for b in blocks_in("p", page)] == [
        (2, "rust", "main\n\n"),
        (7, "sh", "  ```\n"),
    ]
    for broken in (["```sh", "never ended"], ["```", "of no language", "```"]):
        with pytest.raises(BrokenFence):
            list(blocks_in("p", broken))
