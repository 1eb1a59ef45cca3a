"""The loss curve of a job as a picture.

Knows the store's metric rows and matplotlib's object interface; never pyplot, whose figures are global. Invariant: a
job without any point gives a picture too.
"""

import io
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from app.store.metrics import MetricRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ImageFormat = Literal["png", "svg"]

# matplotlib is not safe in threads (its documentation's FAQ): fonts and caches are shared.
_one_at_a_time = threading.Lock()

TRAIN, VALIDATION = "#9aa7b8", "#c2410c"
"""Grey for what fluctuates, one strong colour for what counts; told apart by lightness too."""


def draw(
    rows: Sequence[MetricRow], *, title: str, best: tuple[int, float] | None, image_format: ImageFormat = "png"
) -> bytes:
    """The curve of training and validation loss, nats per character over steps, the best marked."""
    with _one_at_a_time:
        # Imported here: it takes 50 MB and half a second, which a service that draws nothing need not spend.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _plot(axes, rows, best)
        # No mathtext: a name like `$a` is a name.
        axes.set_title(title, fontsize=16, parse_math=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=image_format, metadata={"Date": None} if image_format == "svg" else None)
        return buffer.getvalue()


def _plot(axes: "Axes", rows: Sequence[MetricRow], best: tuple[int, float] | None) -> None:
    train = [(row.step, row.train_loss) for row in rows if row.train_loss is not None]
    validation = [(row.step, row.val_loss) for row in rows if row.val_loss is not None]
    # Large letters: the picture is still read at half its width, 400 pixels.
    axes.tick_params(labelsize=13)
    axes.set_xlabel("step", fontsize=15)
    axes.set_ylabel("nats per character", fontsize=15)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if not train and not validation:
        axes.text(0.5, 0.5, "no loss yet", ha="center", va="center", transform=axes.transAxes, fontsize=18)
        return
    _line(axes, train, label="training", color=TRAIN, linewidth=2)
    _line(axes, validation, label="validation", color=VALIDATION, linewidth=2.5, marker="o", markersize=5)
    if best is not None:
        _mark_best(axes, *best)
    axes.legend(fontsize=14, frameon=False)


def _line(axes: "Axes", points: Sequence[tuple[int, float]], **style: Any) -> None:
    if points:
        if len(points) == 1:
            style["marker"] = "o"
        axes.plot(*zip(*points, strict=True), **style)


def _mark_best(axes: "Axes", step: int, loss: float) -> None:
    axes.plot([step], [loss], linestyle="none", marker="*", markersize=18, color=VALIDATION, label=f"best: {loss:.3f}")
