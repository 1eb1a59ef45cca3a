"""How good a training is after how long, against nanoGPT's CPU recipe and the bars of issue 4.

Each training is a job's, without service and database, in a process of its own. Its network is what the preset gives.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from app import presets
from benchmarks import nanogpt
from benchmarks.figures import Figure, Report, at_most, report_of
from benchmarks.job import measure_job
from benchmarks.nanogpt import Anchor
from benchmarks.options import Options
from benchmarks.timeline import Point, Protocol, best_within, seconds_to
from benchmarks.training_run import TrainingRun, run_training

TARGET = 1.88
"""Nats per character that nanoGPT's recipe ends at."""
SHARES: dict[Protocol, float] = {"cold 64": 1 / 10, "carried": 1 / 16}
"""Of nanoGPT's wall time, in which the target is to be reached."""
BUDGET_SHARES = (1 / 12, 1 / 17, 1 / 22, 1 / 28)
"""A budget is what a user asks for and the learning rate falls to its end, so the time to a loss is looked for with
several budgets."""
BARS_AT_ANCHOR: dict[Protocol, float] = {"cold 64": 1.60, "carried": 1.48}
BARS_AT_TEN_MINUTES: dict[Protocol, float] = {"carried": 1.45, "cold 256": 1.4697}
STRETCH = 1.42
NOMINAL_ANCHOR = Anchor(72.0, None, "--nanogpt DIR measures it; meanwhile budgets are as if it took 72 s")
PUNCTUALITY = 0.97
"""A job ends within 5 % of its budget; what is asked for is a little less than what is allowed, so that it counts."""

NOTES = (
    "Losses in nats per character over the whole last tenth of the text, float32. cold n: windows of n characters, "
    "each begun with no past. carried: the state goes on from the text before.",
    "Times count from the first step to the moment at which a checkpoint is there, evaluations included. After a "
    "budget, the checkpoint that the job calls its best counts.",
)


def measure_quality(folder: Path, options: Options) -> list[Report]:
    """The anchor, time to loss, loss at times; where the text is missing, that it is."""
    if not options.corpus.exists():
        missing = Figure("quality", "skipped", f"{options.corpus} is not there; --corpus names another text")
        return [report_of("Quality", [missing])]
    anchor = _anchor(folder, options)
    runs = list(_short_trainings(options, anchor))
    figures = [_anchor_figure(anchor), *_to_target(runs, anchor)]
    if options.extent == "full" and anchor is not NOMINAL_ANCHOR:
        figures += _at_anchor(options, anchor)
    figures += _long(options)
    if options.extent == "full":
        figures += measure_job(folder, options.corpus, minutes=1.0)
    return [report_of(f"Quality: {options.corpus.name}", figures, NOTES), _checkpoints(runs)]


def _anchor(folder: Path, options: Options) -> Anchor:
    if options.nanogpt_seconds is not None:
        return Anchor(options.nanogpt_seconds, None, "given, measured earlier")
    if options.nanogpt is None:
        return NOMINAL_ANCHOR
    measure = nanogpt.measure if options.extent == "full" else nanogpt.estimate
    return measure(options.nanogpt, options.corpus, folder, options.threads)


def _anchor_figure(anchor: Anchor) -> Figure:
    if anchor is NOMINAL_ANCHOR:
        return Figure("nanoGPT's CPU recipe, wall time", "not measured", anchor.how)
    loss = f", ends at {anchor.val_loss:.4f} by its own estimate (cold 64)" if anchor.val_loss is not None else ""
    return Figure("nanoGPT's CPU recipe, wall time", f"{anchor.seconds:.1f} s{loss}", anchor.how)


def _train(options: Options, seconds: float, protocols: tuple[Protocol, ...], *, best_alone: bool) -> TrainingRun:
    """One training that is to be over within so many seconds."""
    text = options.corpus.read_text(encoding="utf-8")
    minutes = {"minutes": PUNCTUALITY * seconds / 60}
    model, training = presets.resolve(
        options.preset, options.model, options.training | minutes, len(text), vocabulary_size=len(set(text))
    )
    limit = seconds if best_alone else None
    return run_training(
        options.corpus, model, training, threads=options.threads, protocols=protocols, limit_seconds=limit
    )


def _short_trainings(options: Options, anchor: Anchor) -> Iterator[tuple[float, TrainingRun]]:
    """Trainings of a few seconds with their budgets, every checkpoint scored."""
    shares = {"full": BUDGET_SHARES, "short": BUDGET_SHARES[1:2], "tiny": BUDGET_SHARES[-1:]}[options.extent]
    for share in shares:
        seconds = share * anchor.seconds
        yield seconds, _train(options, seconds, ("cold 64", "carried"), best_alone=False)


def _to_target(runs: Sequence[tuple[float, TrainingRun]], anchor: Anchor) -> Iterator[Figure]:
    for protocol, share in SHARES.items():
        times = [seconds_to(run.points, protocol, TARGET) for _, run in runs]
        fastest = min((time for time in times if time is not None), default=None)
        value = "not reached" if fastest is None else f"{fastest:.2f} s, {fastest / anchor.seconds:.4f} of nanoGPT's"
        bar = at_most(fastest, share * anchor.seconds, " s")
        beside = "nanoGPT was not measured" if anchor is NOMINAL_ANCHOR else f"1/{1 / share:.0f} of it: {bar}"
        yield Figure(f"time to {TARGET} ({protocol})", value, beside)


def _at_anchor(options: Options, anchor: Anchor) -> Iterator[Figure]:
    run = _train(options, anchor.seconds, tuple(BARS_AT_ANCHOR), best_alone=True)
    yield from _losses(run, anchor.seconds, "nanoGPT's wall time", BARS_AT_ANCHOR)


def _long(options: Options) -> Iterator[Figure]:
    """The best that a longer training reaches; the bars are those of ten minutes."""
    seconds = 60 * options.minutes
    run = _train(options, seconds, ("carried", "cold 256", "cold 64"), best_alone=True)
    bars = BARS_AT_TEN_MINUTES if options.minutes == 10 else {}
    yield from _losses(run, seconds, f"{seconds:.0f} s", bars)


def _losses(run: TrainingRun, seconds: float, when: str, bars: dict[Protocol, float]) -> Iterator[Figure]:
    best = best_within(run.points, seconds)
    if best is None:
        yield Figure(f"loss within {when}", "no checkpoint", f"the training took {run.seconds:.1f} s")
        return
    for protocol, loss in best.losses.items():
        bar = at_most(loss, bars[protocol], digits=4) if protocol in bars else "no bar"
        if (protocol, bars) == ("carried", BARS_AT_TEN_MINUTES):
            bar += f"; stretch {STRETCH}"
        yield Figure(f"loss within {when} ({protocol})", f"{loss:.4f}", bar)
    progress = f"step {best.step} of {run.steps}, after {best.seconds:.1f} s; {run.precision}"
    yield Figure(f"best checkpoint within {when}", progress, f"the training took {run.seconds:.1f} s")


def _checkpoints(runs: Sequence[tuple[float, TrainingRun]]) -> Report:
    """What the times to a loss were found in."""
    rows = tuple(_row(seconds, point) for seconds, run in runs for point in run.points)
    columns = ("budget s", "after s", "step", "cold 64", "carried")
    return Report("Quality: checkpoints of the short trainings", columns, rows)


def _row(seconds: float, point: Point) -> tuple[str, ...]:
    losses = (f"{point.losses[protocol]:.4f}" for protocol in SHARES)
    return (f"{seconds:.1f}", f"{point.seconds:.2f}", str(point.step), *losses)
