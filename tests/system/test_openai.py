"""From a file to a text with OpenAI's own client, and nothing else."""

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.api.openai_clients import client_of
from tests.system.harness import TEXT, Installation, wait_for

pytestmark = pytest.mark.system

SETTINGS = {
    "network": {"cell": "gru", "hidden_size": 32, "embedding_size": 16},
    "training": {"steps": 60, "batch_size": 8, "sequence_length": 32, "evaluate_every": 20},
}


def ended(client: openai.OpenAI, job_id: str) -> FineTuningJob:
    """The job, once it has succeeded."""

    def probe() -> FineTuningJob | None:
        job = client.fine_tuning.jobs.retrieve(job_id)
        assert job.status not in ("failed", "cancelled"), job
        return job if job.status == "succeeded" else None

    return wait_for(f"the end of {job_id}", probe)


def test_the_whole_way_from_a_file_to_a_text(installation: Installation) -> None:
    installation.start("serve")
    installation.wait_until_ready()
    with client_of(installation.http) as client:
        walk(client)


def walk(client: openai.OpenAI) -> None:
    file = client.files.create(file=("bottles.txt", TEXT.encode()), purpose="fine-tune")
    jobs = client.fine_tuning.jobs
    first = ended(client, jobs.create(model="tiny", training_file=file.id, extra_body=SETTINGS).id)

    assert first.fine_tuned_model is not None
    assert first.trained_tokens == pytest.approx(60 * 8 * 32, rel=0.2)
    messages = [event.message for event in jobs.list_events(first.id)]
    assert messages[0] == "The job is succeeded."
    assert any("validation loss" in message for message in messages)
    checkpoints = list(jobs.checkpoints.list(first.id))
    assert checkpoints[0].step_number == 60

    whole = client.completions.create(
        model=first.fine_tuned_model, prompt="1 green ", max_tokens=50, seed=1, logprobs=2
    )
    stream = client.completions.create(
        model=first.fine_tuned_model, prompt="1 green ", max_tokens=50, seed=1, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    early = client.completions.create(model=checkpoints[-1].fine_tuned_model_checkpoint, prompt="1 green ", seed=1)
    assert len(early.choices[0].text) == 16

    more = {"training": SETTINGS["training"]}
    second = ended(
        client, jobs.create(model=first.fine_tuned_model, training_file=file.id, suffix="more", extra_body=more).id
    )
    assert second.model.startswith(f"{first.fine_tuned_model}@")
    assert [model.id for model in client.models.list()] == [second.fine_tuned_model, first.fine_tuned_model]
    assert client.models.delete("more").deleted
    assert client.files.delete(file.id).deleted
