"""The loop that tutorials have, behind the same framework: what our service is measured against.

A thread for each client, all in one process, each reading one character through the network and yielding one. Knows
nothing of ours; its network is `benchmarks.plain`. It listens on loopback until it is ended.
"""

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from json import dumps
from typing import Any

import anyio.to_thread
import httpx
import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from torch import Tensor

from benchmarks import child
from benchmarks.plain import PlainNetwork, State
from models.config import ModelConfig
from tests.system.harness import free_port, wait_for

STOP_SECONDS = 5.0


@contextlib.contextmanager
def plain_service(model: ModelConfig, alphabet: str, threads: int) -> Iterator[int]:
    """The port of one that runs until the block ends. It may not answer yet."""
    port = free_port()
    request = {"model": model.as_dict(), "alphabet": alphabet, "threads": threads, "port": port}
    with subprocess.Popen([sys.executable, "-m", "benchmarks.plain_service", dumps(request)]) as process:
        try:
            yield port
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_it_answers(port: int) -> None:
    """Return once it does."""

    def answers() -> bool | None:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/openapi.json", trust_env=False).is_success or None
        except httpx.HTTPError:
            return None

    wait_for("the plain service", answers)


def create_app(network: PlainNetwork, alphabet: str, threads: int) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/generate")
    async def generate(asked: dict[str, Any]) -> StreamingResponse:
        # Starlette calls a generator's `next` in a thread.
        text = written(network, alphabet, asked["max_characters"])
        return StreamingResponse(text, media_type="text/plain")

    return app


def written(network: PlainNetwork, alphabet: str, characters: int) -> Iterator[str]:
    """One character after another."""
    state: State = None
    ids: Tensor = torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(characters):
        with torch.inference_mode():  # of a thread, and the next character may be another one's
            logits_BTV, state = network(ids, state)
            ids = torch.multinomial(logits_BTV[:, -1].softmax(-1), 1)
        yield alphabet[int(ids)]


def main() -> None:
    asked = child.request()
    torch.set_num_threads(1)  # the clients' threads take all cores; more for each product only fight over them
    alphabet = asked["alphabet"]
    network = PlainNetwork(ModelConfig(**asked["model"]), len(alphabet)).eval()
    app = create_app(network, alphabet, asked["threads"])
    uvicorn.run(app, host="127.0.0.1", port=asked["port"], log_level="warning", http="h11")


if __name__ == "__main__":
    main()
