"""`python -m tests.fuzz [--full | --examples N] [--seed N]`: Schemathesis against a service of its own, all checks.

The service has no worker, so that jobs only queue; it has a text, a model and a finished job to find, and asks for an
API key: Schemathesis shows one, and tries what it gets with none and with a wrong one (`ignored_auth`). Ends with what
Schemathesis ends with: 0 if every answer was as the OpenAPI document says, and none was 5xx.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import httpx

from app.store.api_keys import Scope, create_key
from app.store.opening import open_existing
from tests.bad_inputs.run import stage
from tests.system.harness import Installation

EXAMPLES, FULL_EXAMPLES = 60, 800
"""For each operation and phase: 2,300 requests in all, or more than 20,000."""


SETTINGS = """
hooks = "tests.fuzz.hooks"
request-timeout = 30
# Made up beside the key that is shown, they count as headers that a call lacks.
generation.with-security-parameters = false

[[operations]]
# A stream of a job that nobody works on has no end: it is asked for the finished job alone.
include-operation-id = "follow_job"
phases.stateful.enabled = false
checks.response_schema_conformance.enabled = false  # it holds each event against the schema of the whole text
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]

[[operations]]
# Six minutes go into thinking out its queries; `POST /generate` has the same fields.
include-operation-id = "generate_by_query"
phases.coverage.enabled = false

[[operations]]
# A schema cannot say which bytes are a text or a model, or that one budget excludes the others.
include-operation-id = ["upload_corpus", "upload_model", "create_job", "generate", "generate_by_query", "score"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "406", "409", "413", "422", "429"]

[[operations]]
# Nor which cursors were given.
include-operation-id = ["list_corpora", "list_jobs", "list_models"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "422"]

[[operations]]
# The same of OpenAI's dialect, which has 400 for both.
include-operation-id = [
    "upload_file", "create_fine_tuning_job", "complete",
    "list_files", "list_fine_tuning_jobs", "list_fine_tuning_events", "list_fine_tuning_checkpoints",
]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "413", "429"]

[[operations]]
# A job that stands otherwise than the call wants is a 400 there, elsewhere a 409.
include-operation-id = [
    "cancel_fine_tuning_job", "pause_fine_tuning_job", "resume_fine_tuning_job", "delete_file", "delete_openai_model",
]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404"]

[[operations]]
# In a form everything is bytes: a number is a text as well, and `true` a name.
include-operation-id = ["upload_corpus", "upload_model", "upload_file"]
checks.negative_data_rejection.enabled = false
"""


def key_of(installation: Installation) -> str:
    """A key that opens everything, made in the database of an installation that runs."""
    with closing(open_existing(installation.database_url)) as database:
        return create_key(database, "fuzz", frozenset(Scope))[1]


def fuzz(installation: Installation, folder: Path, examples: int, seed: int) -> int:
    """The exit status of Schemathesis on a running service."""
    url, shown = installation.url, f"Bearer {key_of(installation)}"
    with httpx.Client(base_url=url, headers={"Authorization": shown}, timeout=60, trust_env=False) as http:
        staged = stage(http, "shakespeare")
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS)
    command = [
        Path(sys.executable).with_name("schemathesis"),
        f"--config-file={settings}",
        "run",
        f"{url}/openapi.json",
    ]
    command += ["--header", f"Authorization: {shown}"]
    command += [f"--max-examples={examples}", f"--seed={seed}", "--generation-database=none", "--continue-on-failure"]
    kept = {"FUZZ_FINISHED_JOB": staged.job, "FUZZ_KEPT": f"{staged.corpus},{staged.job},{staged.model}"}
    environment = os.environ | {"PYTHONPATH": os.getcwd()} | kept
    return subprocess.run(command, env=environment, cwd=folder, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--full", dest="examples", action="store_const", const=FULL_EXAMPLES)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Installation(Path(folder))
        made.environment["CHARSMITH_MAX_CORPUS_BYTES"] = "1000000"
        try:
            made.start_api()
            status = fuzz(made, Path(folder), given.examples, given.seed)
        finally:
            made.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
