"""The OpenAPI document: complete, stable, and with examples that run as they stand."""

import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.job_schemas import ModelSettings, TrainingSettings
from app.openai.dialect import is_openai
from app.schemas import GenerateRequest
from app.statuses import STATUSES
from models.config import ModelConfig, TrainingConfig
from tests.api.service import Service

OPERATIONS = {
    "upload_corpus": ("post", "/corpora"),
    "list_corpora": ("get", "/corpora"),
    "get_corpus": ("get", "/corpora/{key}"),
    "delete_corpus": ("delete", "/corpora/{key}"),
    "download_corpus": ("get", "/corpora/{key}/text"),
    "create_job": ("post", "/jobs"),
    "list_jobs": ("get", "/jobs"),
    "get_job": ("get", "/jobs/{id}"),
    "cancel_job": ("post", "/jobs/{id}/cancel"),
    "pause_job": ("post", "/jobs/{id}/pause"),
    "resume_job": ("post", "/jobs/{id}/resume"),
    "delete_job": ("delete", "/jobs/{id}"),
    "get_metrics": ("get", "/jobs/{id}/metrics"),
    "follow_job": ("get", "/jobs/{id}/events"),
    "get_loss_png": ("get", "/jobs/{id}/loss.png"),
    "get_loss_svg": ("get", "/jobs/{id}/loss.svg"),
    "list_models": ("get", "/models"),
    "upload_model": ("post", "/models"),
    "get_model": ("get", "/models/{key}"),
    "delete_model": ("delete", "/models/{key}"),
    "list_checkpoints": ("get", "/models/{key}/checkpoints"),
    "download_model": ("get", "/models/{key}/download"),
    "score": ("post", "/score"),
    "upload_file": ("post", "/v1/files"),
    "list_files": ("get", "/v1/files"),
    "get_file": ("get", "/v1/files/{key}"),
    "download_file": ("get", "/v1/files/{key}/content"),
    "delete_file": ("delete", "/v1/files/{key}"),
    "create_fine_tuning_job": ("post", "/v1/fine_tuning/jobs"),
    "list_fine_tuning_jobs": ("get", "/v1/fine_tuning/jobs"),
    "get_fine_tuning_job": ("get", "/v1/fine_tuning/jobs/{id}"),
    "cancel_fine_tuning_job": ("post", "/v1/fine_tuning/jobs/{id}/cancel"),
    "pause_fine_tuning_job": ("post", "/v1/fine_tuning/jobs/{id}/pause"),
    "resume_fine_tuning_job": ("post", "/v1/fine_tuning/jobs/{id}/resume"),
    "list_fine_tuning_events": ("get", "/v1/fine_tuning/jobs/{id}/events"),
    "list_fine_tuning_checkpoints": ("get", "/v1/fine_tuning/jobs/{id}/checkpoints"),
    "list_openai_models": ("get", "/v1/models"),
    "get_openai_model": ("get", "/v1/models/{key}"),
    "delete_openai_model": ("delete", "/v1/models/{key}"),
    "complete": ("post", "/v1/completions"),
    "healthz": ("get", "/healthz"),
    "readyz": ("get", "/readyz"),
    "get_service_metrics": ("get", "/metrics"),
}


@pytest.fixture
def document(http: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = http.get("/openapi.json").json()
    return answer


def operations(document: dict[str, Any], *, openai: bool | None = None) -> list[dict[str, Any]]:
    """All of them, those of OpenAI's dialect, or all but those."""
    paths = document["paths"].items()
    return [each for path, of in paths if openai in (None, is_openai(path)) for each in of.values()]


def test_the_names_of_operations_are_what_clients_were_generated_from(document: dict[str, Any]) -> None:
    found = {
        operation["operationId"]: (method, path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }

    assert {name: found.get(name) for name in OPERATIONS} == OPERATIONS


def test_each_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for operation in operations(document):
        name = operation["operationId"]
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
        assert "500" in operation["responses"], name


def test_errors_are_problem_documents(document: dict[str, Any]) -> None:
    for operation in operations(document, openai=False):
        name = operation["operationId"]
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (name, status)
        takes_input = "parameters" in operation or "requestBody" in operation
        assert ("422" in operation["responses"]) == takes_input, name


def test_errors_of_the_dialect_are_openais(document: dict[str, Any]) -> None:
    found = operations(document, openai=True)
    assert len(found) == 17
    for operation in found:
        assert not {"409", "422"} & operation["responses"].keys(), operation["operationId"]
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/json"], (operation["operationId"], status)
                [content] = response["content"].values()
                assert content["schema"]["$ref"].endswith("/OpenAIError")
                assert content["example"]["error"].keys() == {"message", "type", "param", "code"}


def test_each_error_is_shown_by_an_example_of_its_own(document: dict[str, Any]) -> None:
    for operation in operations(document, openai=False):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                example = response["content"]["application/problem+json"]["example"]
                assert example["status"] == int(status), operation["operationId"]
                assert {"type", "detail"} < example.keys()
                assert (example["title"], example["code"]) == STATUSES[int(status)]


def test_the_version_stands_in_one_place(document: dict[str, Any]) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert document["info"]["version"] == project["version"]


def test_the_document_keeps_to_the_version_that_it_names(http: httpx.Client, document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert "itemSchema" not in http.get("/openapi.json").text, "a word of OpenAPI 3.2"


FOR_A_PERSON_TO_FILL_IN = {
    *("after", "status", "idempotency-key", "last-event-id"),
    *("seed", "stop", "allowed_characters", "continue_from"),
    *("purpose", "metadata"),
    *("compare", "theme", "format"),
}
"""Optional, and better left empty: they narrow down, go on from an earlier answer, or make each answer the same."""


def test_each_request_is_filled_in(document: dict[str, Any]) -> None:
    for operation in operations(document):
        name = operation["operationId"]
        for parameter in operation.get("parameters", ()):
            if parameter["required"]:
                assert parameter["example"] in parameter["schema"]["examples"], (name, parameter["name"])
            elif parameter["name"] not in FOR_A_PERSON_TO_FILL_IN:
                assert "default" in parameter["schema"], (name, parameter["name"])
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            assert kind == "multipart/form-data" or content["example"], name


def test_examples_name_their_fields_in_the_order_of_the_schema(document: dict[str, Any]) -> None:
    content = document["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]

    assert next(iter(content["example"])) == "model"
    assert GenerateRequest.model_validate(content["example"])


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    schemas = document["components"]["schemas"]
    assert {reference.rsplit("/", 1)[-1] for reference in references(document)} <= schemas.keys()
    assert "HTTPValidationError" not in schemas


def test_the_example_of_a_job_runs_as_it_stands(service: Service, document: dict[str, Any]) -> None:
    service.upload(name="shakespeare")
    example = document["components"]["schemas"]["JobRequest"]["examples"][0]

    assert service.http.post("/jobs", json=example).status_code == 202


def test_requests_know_every_setting_of_a_network_and_a_training() -> None:
    """The ranges live in `models.config`; here are the same fields."""
    assert set(ModelSettings.model_fields) == set(ModelConfig().as_dict())
    assert set(TrainingSettings.model_fields) == set(TrainingConfig().as_dict())


def test_the_documentation_needs_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs")

    assert page.status_code == 200
    assert "://" not in page.text, "nor its own name: a proxy in front of it may have another"
