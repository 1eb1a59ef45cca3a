"""Whether the service lives, and whether it can serve.

Invariant: a missing worker is told but makes nobody unready: uploads, looks and generation go on without one, and jobs
wait in the queue.
"""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.errors import Problem
from app.openapi import problems
from app.routes.dependencies import Generating, StoredIn, Watching
from app.store.database import Database
from app.store.errors import StoreError
from app.store.workers import list_workers

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "alive"


class SeenWorkerDocument(BaseModel):
    """A worker whose heartbeat this service saw move within the last lease."""

    id: str
    device: str
    memory_bytes: int | None = Field(description="What a training may take there.")
    job_id: str | None
    seconds_since_heartbeat: float


class Ready(BaseModel):
    """What the service needs, and the workers it sees."""

    status: str = "ready"
    database: bool
    generation: bool = Field(description="The generation process lives.")
    workers: list[SeenWorkerDocument] | None = Field(
        description="Empty: jobs wait until a worker is started. Null where keys are asked for and none was shown."
    )


@router.get("/healthz", summary="Is the service alive?")
async def healthz() -> Alive:
    """Answers as long as the process can answer at all."""
    return Alive()


@router.get("/readyz", summary="Can the service work?", responses=problems(503))
async def readyz(request: Request, database: StoredIn, generation: Generating, watch: Watching) -> Ready:
    """503 without a usable database or a generation process. Workers are listed; a missing one is no 503."""
    seen = [SeenWorkerDocument(**asdict(worker)) for worker in watch.workers_seen()]
    workers = None if await request.state.is_stranger() else seen
    ready = Ready(database=await run_in_threadpool(_usable, database), generation=generation.alive, workers=workers)
    if not (ready.database and ready.generation):
        missing = "database" if not ready.database else "generation process"
        details: dict[str, Any] = ready.model_dump(exclude={"status"})
        raise Problem(503, "not_ready", f"The {missing} is not usable.", headers={"Retry-After": "1"}, **details)
    return ready


def _usable(database: Database) -> bool:
    try:
        list_workers(database)
    except StoreError:
        return False
    return True
