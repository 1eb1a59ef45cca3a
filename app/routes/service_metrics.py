"""The installation in numbers, as Prometheus reads them.

The service counts its own requests; what worker and generation process know is asked for at each scrape, so the numbers
are right with several processes. Invariant: what cannot be had in time is left out, and the rest is answered.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.generation.streams import Generation, GenerationUnavailable
from app.openapi import body
from app.request_metrics import RequestMetrics
from app.routes.dependencies import Generating, StoredIn, Watching
from app.routes.guarded import GuardedRoute
from app.store.database import Database
from app.store.errors import StoreError
from app.store.figures import Figures, RunningJob, read_figures
from app.watch import SeenWorker

router = APIRouter(tags=["health"], route_class=GuardedRoute)

PATIENCE_SECONDS = 2.0
"""For each of database and generation process; Prometheus itself waits for ten."""

_OF_JOBS: tuple[tuple[str, str, Callable[[RunningJob], float | None]], ...] = (
    ("step", "Step of a running job.", lambda job: job.step),
    ("train_loss", "Training loss of a running job, nats per character.", lambda job: job.train_loss),
    ("val_loss", "Validation loss of a running job, nats per character.", lambda job: job.val_loss),
    ("characters_per_second", "Characters trained on in a second.", lambda job: job.characters_per_second),
    ("step_seconds", "Seconds that a step takes.", lambda job: job.step_seconds),
    ("memory_bytes", "Peak memory of a running job on its device.", lambda job: job.memory_bytes),
)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: body(CONTENT_TYPE_PLAIN_0_0_4)},
)
async def get_service_metrics(
    request: Request, database: StoredIn, generation: Generating, watch: Watching
) -> Response:
    """Prometheus' text format; `docs/metrics.md` lists every metric. What cannot be had in time is left out."""
    figures, counts = await asyncio.gather(_figures(database), _counts(generation))
    told = CollectorRegistry(auto_describe=False)
    told.register(_Families([*_of_database(figures), *_of_generation(generation, counts)]))
    told.register(_Families([*_of_workers(watch.workers_seen())]))
    own: RequestMetrics = request.app.state.request_metrics
    return Response(generate_latest(own.registry) + generate_latest(told), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _figures(database: Database) -> Figures | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await run_sync(read_figures, database, abandon_on_cancel=True)
    except (StoreError, TimeoutError):
        return None


async def _counts(generation: Generation) -> dict[str, int] | None:
    if not generation.alive:
        return None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await generation.counts()
    except (GenerationUnavailable, TimeoutError):
        return None


def _of_database(figures: Figures | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("charsmith_database_up", "Whether the database answered.", value=float(figures is not None))
    if figures is None:
        return
    yield GaugeMetricFamily("charsmith_database_bytes", "Size of the database, its log included.", value=figures.bytes)
    by_status = GaugeMetricFamily("charsmith_jobs", "Jobs by status.", labels=["status"])
    for status, number in figures.jobs.items():
        by_status.add_metric([status], number)
    yield by_status
    for name, meaning, value_of in _OF_JOBS:
        family = GaugeMetricFamily(f"charsmith_job_{name}", meaning, labels=["job_id"])
        for job in figures.running:
            if (value := value_of(job)) is not None:
                family.add_metric([job.id], value)
        yield family


def _of_generation(generation: Generation, counts: dict[str, int] | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("charsmith_streams_open", "Streams that hold a place.", value=generation.open_streams)
    yield GaugeMetricFamily(
        "charsmith_streams_queued", "Of these, streams that wait to be admitted.", value=generation.waiting_streams
    )
    up = counts is not None
    yield GaugeMetricFamily("charsmith_generation_up", "Whether the generation process answered.", value=float(up))
    if counts is None:
        return
    yield CounterMetricFamily("charsmith_characters_sampled", "Characters written.", value=counts["characters"])
    yield GaugeMetricFamily("charsmith_generation_models", "Models that are loaded.", value=counts["models"])
    yield GaugeMetricFamily("charsmith_generation_model_bytes", "Memory of loaded models.", value=counts["model_bytes"])


def _of_workers(seen: list[SeenWorker]) -> Iterator[Metric]:
    labels = ["worker", "device"]
    workers = GaugeMetricFamily("charsmith_worker_up", "Workers whose heartbeat moves.", labels=labels)
    memory = GaugeMetricFamily("charsmith_worker_memory_bytes", "Memory that a training may take.", labels=labels)
    for worker in seen:
        workers.add_metric([worker.id, worker.device], 1)
        if worker.memory_bytes is not None:
            memory.add_metric([worker.id, worker.device], worker.memory_bytes)
    yield from (workers, memory)
