"""Models in OpenAI's dialect: those that were trained or uploaded, with a checkpoint that can write.

Knows HTTP and the store's functions, no SQL. Invariant: each id of the list can be looked up, asked for a completion
and trained further.
"""

from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from app.errors import Problem
from app.openai.dialect import PREFIX
from app.openai.files import DeletedDocument
from app.openai.lists import MOST_ITEMS, Item, ListDocument, list_document
from app.openapi import problems
from app.presets import SIZES
from app.routes.dependencies import CheckpointKey, ModelKey, StoredIn
from app.routes.guarded import GuardedRoute
from app.store import trained_models
from app.store.database import Database
from app.store.errors import NotFound
from app.store.trained_models import Model

router = APIRouter(prefix=PREFIX, tags=["openai"], route_class=GuardedRoute)

AUTO = "auto"
CHECKPOINT = "checkpoint_"
"""An id of one begins so."""


class OpenAIModelDocument(Item):
    """A model, or one checkpoint of it."""

    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["charsmith"] = "charsmith"
    name: str = Field(description="Calls take it in place of the id; it means the newest model of that name.")


def model_document(model: Model, step: str = "") -> OpenAIModelDocument:
    """A model as it is answered here; `step` is what of a checkpoint's reference follows the model."""
    return OpenAIModelDocument(id=f"{model.id}{step}", created=int(model.created_at.timestamp()), name=model.name)


def not_a_model(key: str, error: NotFound) -> Problem | NotFound:
    """The error, or what to say instead if the key is a size that jobs take for a base model."""
    if key not in (AUTO, *SIZES):
        return error
    told = f"{key!r} is a size of network to train, not a model: fine_tuning.jobs.create makes one."
    return Problem(404, "model_not_found", told)


@router.get("/models", summary="List models")
def list_openai_models(database: StoredIn) -> ListDocument[OpenAIModelDocument]:
    """All models that can write, newest first. The sizes that a job may begin with are not among them."""
    found = [model_document(model) for model in _all(database) if model.latest_step is not None]
    return list_document(found, has_more=False)


def _all(database: Database) -> list[Model]:
    found: list[Model] = []
    after = None
    while True:
        page = trained_models.list_models(database, MOST_ITEMS, after)
        found += page.data
        if page.next is None:
            return found
        after = page.next


# Names have no slash, but clients may ask for anything, and are to be told that there is no such model.
@router.get("/models/{key:path}", summary="Look at a model", responses=problems(404, 422))
def get_openai_model(database: StoredIn, key: CheckpointKey) -> OpenAIModelDocument:
    """A model by id or name, or one checkpoint of it, by `name@step` or its id."""
    try:
        if "@" in key or key.startswith(CHECKPOINT):
            model, checkpoint = trained_models.find_checkpoint(database, key)
            return model_document(model, f"@{checkpoint.step}")
        return model_document(trained_models.get_model(database, key))
    except NotFound as error:
        raise not_a_model(key, error) from None


@router.delete("/models/{key:path}", summary="Delete a model", responses=problems(404, 409, 422, 507))
def delete_openai_model(database: StoredIn, key: ModelKey) -> DeletedDocument:
    """Remove a model and its checkpoints. Refused while its job is not finished."""
    model = trained_models.get_model(database, key)
    trained_models.delete_model(database, model.id)
    return DeletedDocument(id=model.id, object="model")
