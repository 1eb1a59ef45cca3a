"""Generation over HTTP, from a real service to real clients on the same machine, against the bars of its issue."""

from pathlib import Path

from benchmarks.figures import Report, report_of
from benchmarks.options import Extent, Options
from benchmarks.serving_limits import crowd_at_once, killed, unread_streams
from benchmarks.serving_scene import Size, scene
from benchmarks.serving_speed import first_character, lag, long_prompts, throughput

SIZES: dict[Extent, Size] = {
    "full": Size(
        hidden=512,
        streams=64,
        rounds=5,
        turn_seconds=4.0,
        plain=True,
        probes=300,
        ping_seconds=15.0,
        training=True,
        cells=("lstm", "gru", "rnn_tanh"),
        prompt_characters=100_000,
        unread=1000,
        unread_hidden=512,
        unread_seconds=240.0,
        clients=1000,
        client_characters=500,
        kills=True,
    ),
    "short": Size(
        hidden=512,
        streams=64,
        rounds=1,
        turn_seconds=0.7,
        plain=False,
        probes=40,
        ping_seconds=0.6,
        training=False,
        cells=("lstm",),
        prompt_characters=10_000,
        unread=0,
        unread_hidden=0,
        unread_seconds=0.0,
        clients=200,
        client_characters=300,
        kills=False,
    ),
    "tiny": Size(
        hidden=16,
        streams=4,
        rounds=1,
        turn_seconds=0.1,
        plain=True,
        probes=3,
        ping_seconds=0.1,
        training=False,
        cells=("lstm",),
        prompt_characters=500,
        unread=3,
        unread_hidden=16,
        unread_seconds=0.5,
        clients=80,
        client_characters=50,
        kills=True,
    ),
}


def measure_serving(folder: Path, options: Options) -> list[Report]:
    """One table. A part of a figure that is said to be met or missed has its bar beside it."""
    size = SIZES[options.extent]
    with scene(folder, size) as running:
        unread = list(unread_streams(running)) if size.unread else []
        figures = [
            *throughput(running),
            *first_character(running),
            *lag(running),
            *long_prompts(running),
            *unread,
            *crowd_at_once(running),
            *(killed(running) if size.kills else ()),
        ]
    return [report_of("Serving over HTTP", figures, _notes(size))]


def _notes(size: Size) -> tuple[str, ...]:
    notes = [
        f"LSTM 1x{size.hidden}, embedding 64, vocabulary 65, weights at random. Service, generation process and "
        "clients share the machine; clients are one process and one thread with raw sockets. The engine alone takes "
        "turns with the service.",
        "First character: from the start of connecting to the first byte of the body, one request after another, asked "
        "by a process of its own.",
        "/healthz is asked a hundred times a second over one connection, by a process of its own; a ping that is due "
        "counts from then. The event loop's lag is a part of it: what is measured is an upper bound.",
    ]
    if size.plain:
        notes.append(
            "Plain loop: nn.Embedding, nn.LSTM on one character, nn.Linear, softmax, multinomial, in a generator that "
            "FastAPI streams, one character a chunk; a thread for each client, one for each product. It takes turns "
            "too."
        )
    if size.training:
        notes.append("A worker is there, idle but for the training, which is a default job of an hour on all cores.")
    if size.unread:
        notes.append(
            f"Streams that nobody reads: LSTM 1x{size.unread_hidden}, characters of four bytes, receive buffers of "
            "4 KiB, measured when the generation process has come to rest."
        )
    if not size.kills:
        notes.append(
            "Left out in a short run: the plain loop, a training beside, other cells, streams that nobody reads, the "
            "killed generation process."
        )
    return tuple(notes)
