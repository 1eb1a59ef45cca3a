"""The examples of the OpenAPI document, sent as they stand to a fresh service: what Swagger UI would send."""

from typing import Any

import httpx
import pytest

from tests.databases import once
from tests.system.harness import TEXT, Installation, wait_for

pytestmark = [once, pytest.mark.system]


class Examples:
    """Sends requests of nothing but examples, and remembers which operations it has called."""

    def __init__(self, service: Installation) -> None:
        self._service = service
        self._document = service.http.get("/openapi.json").json()
        self.operations = {
            operation["operationId"]: (method, path, operation)
            for path, methods in self._document["paths"].items()
            for method, operation in methods.items()
        }
        self.called: set[str] = set()

    def call(self, name: str, *statuses: int, file: bytes = b"") -> httpx.Response:
        """The answer to the operation's example, which has one of the statuses."""
        method, path, operation = self.operations[name]
        path, query = self._filled_in(path, operation)
        answer = self._service.http.request(method, path, params=query, **self._body(operation, file))
        assert answer.status_code in statuses, f"{name}: {answer.status_code} {answer.text}\n{self._service.logs()}"
        self.called.add(name)
        return answer

    def _filled_in(self, path: str, operation: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The path and query with every example and every default."""
        query = {}
        for parameter in operation.get("parameters", ()):
            value = parameter.get("example", parameter["schema"].get("default"))
            assert value is not None or not parameter["required"], parameter
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", value)
            elif value is not None:
                query[parameter["name"]] = value
        return path, query

    def _body(self, operation: dict[str, Any], file: bytes) -> dict[str, Any]:
        contents = operation.get("requestBody", {}).get("content", {})
        if "application/json" in contents:
            return {"json": contents["application/json"]["example"]}
        if "multipart/form-data" in contents:
            reference = contents["multipart/form-data"]["schema"]["$ref"]
            properties = self._document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
            fields = {name: field["examples"][0] for name, field in properties.items() if "examples" in field}
            return {"files": {"file": file}, "data": fields}
        return {}


def test_every_example_runs_as_it_stands_on_a_fresh_service(installation: Installation) -> None:
    installation.start("serve")
    installation.wait_until_ready()
    examples = Examples(installation)

    def job_is(status: str) -> None:
        wait_for(f"the job to be {status}", lambda: examples.call("get_job", 200).json()["status"] == status)

    def fine(*names: str) -> None:
        for name in names:
            examples.call(name, 200)

    examples.call("upload_corpus", 201, file=TEXT.encode())
    fine("healthz", "readyz", "list_corpora", "get_corpus", "download_corpus")
    examples.call("create_job", 202)
    examples.call("pause_job", 200, 202)
    job_is("paused")
    examples.call("resume_job", 200)
    job_is("succeeded")
    fine("list_jobs", "follow_job", "get_metrics", "get_loss_png", "get_loss_svg")
    fine("list_models", "get_model", "list_checkpoints", "generate", "generate_by_query", "score")
    examples.call("upload_model", 201, file=examples.call("download_model", 200).content)
    examples.call("create_job", 202)
    examples.call("cancel_job", 200, 202)
    job_is("cancelled")
    walk_openais(examples)
    weights = examples.call("download_model", 200).content
    examples.call("delete_openai_model", 200)
    copy = {"files": {"file": weights}, "data": {"name": "shakespeare"}}
    installation.http.post("/models", **copy).raise_for_status()
    examples.call("get_service_metrics", 200)
    for name in ("delete_job", "delete_model", "delete_corpus"):
        examples.call(name, 204)
    examples.call("upload_corpus", 201, file=TEXT.encode())
    examples.call("delete_file", 200)

    assert examples.called == set(examples.operations), "each operation has its place in the walk"


def walk_openais(examples: Examples) -> None:
    """The same texts, jobs and models in OpenAI's dialect."""

    def job_is(status: str) -> None:
        def probe() -> bool:
            return bool(examples.call("get_fine_tuning_job", 200).json()["status"] == status)

        wait_for(f"the job to be {status}", lambda: probe() or None)

    examples.call("upload_file", 200, file=TEXT.encode())
    for name in ("list_files", "get_file", "download_file", "list_openai_models", "get_openai_model", "complete"):
        examples.call(name, 200)
    examples.call("create_fine_tuning_job", 200)
    examples.call("pause_fine_tuning_job", 200)
    job_is("paused")
    examples.call("resume_fine_tuning_job", 200)
    examples.call("cancel_fine_tuning_job", 200)
    job_is("cancelled")
    for name in ("list_fine_tuning_jobs", "list_fine_tuning_events", "list_fine_tuning_checkpoints"):
        examples.call(name, 200)
