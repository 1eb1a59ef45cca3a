"""What OpenAI's API has and this service has not, so that who asks for it is told why.

Knows paths alone.
"""

from app.openai.dialect import PREFIX

INSTEAD = {
    "chat": "the networks go on with a text and hold no conversation: use /v1/completions",
    "responses": "the networks go on with a text and hold no conversation: use /v1/completions",
    "conversations": "the networks go on with a text and hold no conversation: use /v1/completions",
    "assistants": "the networks go on with a text and hold no conversation: use /v1/completions",
    "threads": "the networks go on with a text and hold no conversation: use /v1/completions",
    "embeddings": "the networks tell how likely a text is (/score), and no vectors for it",
    "uploads": "a file is uploaded as a whole, however large: POST /v1/files",
    "batches": "send the requests side by side: they are worked on together",
    "audio": "the networks know characters alone",
    "images": "the networks know characters alone",
    "videos": "the networks know characters alone",
    "realtime": "the networks know characters alone",
    "moderations": "the networks judge nothing",
    "evals": "POST /score tells how likely a model finds a text",
    "vector_stores": "there is no search in files",
    "containers": "no code is run here",
    "organization": "keys are made by `charsmith keys create`",
    "fine_tuning/checkpoints": "who may use a checkpoint is said by the scopes of API keys",
    "fine_tuning/alpha": "the networks are trained on texts alone",
}
"""By the beginning of a path below `/v1`."""
HERE = "files, fine_tuning/jobs, models and completions"


def why_absent(path: str) -> str | None:
    """What to tell who asks for a path below `/v1` that is not there; None for any other path."""
    if not path.startswith(f"{PREFIX}/"):
        return None
    asked = path.removeprefix(f"{PREFIX}/")
    for beginning, reason in INSTEAD.items():
        if asked == beginning or asked.startswith(f"{beginning}/"):
            return f"Charsmith has no {PREFIX}/{beginning}: {reason}."
    return f"There is nothing at {path!r}; below {PREFIX} there are {HERE}."
