"""The loss curves of one job, or of several over one another, as a picture.

Knows the store's metric rows and matplotlib's object interface; never pyplot, whose figures are global. Invariants: a
job without any point gives a picture too; no two curves of a picture have the same colour, marker or name; how long
drawing takes does not depend on how long a job's history is.
"""

import io
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from app.store.metrics import MetricRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

ImageFormat = Literal["png", "svg"]

# matplotlib is not safe in threads (its documentation's FAQ): fonts and caches are shared.
_one_at_a_time = threading.Lock()


class Theme(StrEnum):
    """What a picture is looked at on."""

    LIGHT = "light"
    DARK = "dark"


class Colors(NamedTuple):
    """A theme's colours; the same places in two themes mean the same."""

    background: str
    ink: str
    grid: str
    training: str
    """Of a single job: grey for what fluctuates, so that the strong colour is for what counts. 3:1 too."""
    jobs: tuple[str, ...]


# Chosen by a search for the largest distance between the closest two, as seen with normal sight and by simulated
# protanopia, deuteranopia and tritanopia (Machado 2009): at least 19 in CIELAB, each 3:1 against its background. The
# usual palette of Okabe and Ito has yellow and sky blue, which are lost on white.
COLORS = {
    Theme.LIGHT: Colors(
        *("#ffffff", "#1f2937", "#e5e7eb", "#8390a3"),
        ("#c2410c", "#0072b2", "#12a543", "#4312a5", "#a8385d", "#5c250a", "#7e47eb", "#53246b"),
    ),
    Theme.DARK: Colors(
        *("#111827", "#f3f4f6", "#374151", "#8593a8"),
        ("#fb923c", "#56b4e9", "#e7e723", "#b447eb", "#eb4747", "#c2ddeb", "#3883a8", "#d6a085"),
    ),
}
MARKERS = "osD^vPXh"
"""One for each job: shape tells what colour might not."""
MOST_JOBS = len(MARKERS)
SPANS = 300
"""A history is cut into so many stretches of steps: the picture is 800 pixels wide."""
MARKED = 16
"""About how many markers a curve bears: more would hide it."""
LONGEST_NAME = 30
"""In characters: what fits the picture's width, were they all a `W`."""
LONGEST_NAME_WITH_ID = 10


@dataclass(frozen=True)
class Curve:
    """What is drawn of a job."""

    id: str
    name: str
    rows: Sequence[MetricRow]
    best: tuple[int, float] | None
    """Step and validation loss."""


def draw(curves: Sequence[Curve], *, theme: Theme | None = None, image_format: ImageFormat = "png") -> bytes:
    """Training and validation loss of at most `MOST_JOBS` jobs, nats per character over steps, each one's best marked.

    Without a theme a PNG is light, and an SVG what its reader prefers, as far as what shows it can tell.
    """
    assert 0 < len(curves) <= MOST_JOBS
    with _one_at_a_time:
        # Imported here: it takes 50 MB and half a second, which a service that draws nothing need not spend.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        colors = COLORS[theme or Theme.LIGHT]
        # Below the axes each further job has a line of the legend.
        height = 5 if len(curves) == 1 else 5 + 0.29 * len(curves)
        figure = Figure(figsize=(8, height), dpi=100, layout="constrained", facecolor=colors.background)
        FigureCanvasAgg(figure)
        _plot(figure, curves, colors)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=image_format, metadata={"Date": None} if image_format == "svg" else None)
    picture = buffer.getvalue()
    return _following_the_reader(picture) if image_format == "svg" and theme is None else picture


def _plot(figure: "Figure", curves: Sequence[Curve], colors: Colors) -> None:
    axes = figure.add_subplot(facecolor=colors.background)
    _dress(axes, colors)
    if len(curves) == 1:
        (curve,) = curves
        _title(axes, curve.name, colors)
        handles = _single(axes, curve, colors)
    else:
        handles = _several(axes, curves, colors)
    if not axes.lines:
        axes.set(xticks=[], yticks=[])
        place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no loss yet", fontsize=18, color=colors.ink, **place)
    # Outside of the axes: there it hides no curve, and no place need be looked for.
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3 if len(curves) == 1 else 1,
        fontsize=14,
        frameon=False,
        labelcolor=colors.ink,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _dress(axes: "Axes", colors: Colors) -> None:
    """Large letters: the picture is still read at half its width, 400 pixels."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.tick_params(labelsize=13, color=colors.ink, labelcolor=colors.ink)
    axes.set_xlabel("step", fontsize=15, color=colors.ink)
    axes.set_ylabel("nats per character", fontsize=15, color=colors.ink)
    # Six numbers like "1,000,000" side by side are as wide as the axis.
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(visible=True, color=colors.grid)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colors.ink)


def _title(axes: "Axes", name: str, colors: Colors) -> None:
    # No mathtext: a name like `$a` is a name.
    axes.set_title(_shortened(name, LONGEST_NAME), fontsize=16, color=colors.ink, parse_math=False)


def _single(axes: "Axes", curve: Curve, colors: Colors) -> list["Line2D"]:
    color = colors.jobs[0]
    training, validation = _points(curve.rows, "train_loss"), _points(curve.rows, "val_loss")
    handles = [
        *_line(axes, training, label="training", color=colors.training, linewidth=2),
        *_line(axes, validation, label="validation", color=color, linewidth=2.5, marker="o", markersize=5),
    ]
    if curve.best is not None:
        handles += _star(axes, curve.best, colors, color, label=f"best: {curve.best[1]:.3f}")
    return handles


def _several(axes: "Axes", curves: Sequence[Curve], colors: Colors) -> list["Line2D"]:
    """Each job in its colour: training thin and pale, validation strong."""
    from matplotlib.lines import Line2D

    handles = []
    for curve, label, color, marker in zip(curves, _labels(curves), colors.jobs, MARKERS, strict=False):
        style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 7, "linewidth": 2.5}
        validation = _points(curve.rows, "val_loss")
        _line(axes, _points(curve.rows, "train_loss"), color=color, linewidth=1.2, alpha=0.45)
        _line(axes, validation, markevery=max(1, len(validation) // MARKED), **style)
        if curve.best is not None:
            label += f", best: {curve.best[1]:.3f}"
            _star(axes, curve.best, colors, color)
        handles.append(Line2D([], [], label=label, **style))
    how: dict[str, Any] = {"color": colors.ink, "linestyle": "none", "marker": "*", "markersize": 15}
    handles.append(Line2D([], [], label="best; thick: validation, thin: training", **how))
    return handles


def _line(axes: "Axes", points: Sequence[tuple[int, float]], **style: Any) -> list["Line2D"]:
    if not points:
        return []
    if len(points) == 1:
        style["marker"] = style.get("marker", "o")
    return axes.plot(*zip(*points, strict=True), **style)


def _star(axes: "Axes", best: tuple[int, float], colors: Colors, color: str, **style: Any) -> list["Line2D"]:
    """On top of all curves, and rimmed, so that it is seen upon its own."""
    step, loss = best
    rim: dict[str, Any] = {"markeredgecolor": colors.background, "markeredgewidth": 1}
    return axes.plot([step], [loss], linestyle="none", marker="*", markersize=20, color=color, zorder=5, **rim, **style)


def _points(rows: Sequence[MetricRow], loss: Literal["train_loss", "val_loss"]) -> list[tuple[int, float]]:
    """Steps and losses; of a long history the lowest and the highest of each stretch, so that no spike is lost."""
    points = [(row.step, value) for row in rows if (value := getattr(row, loss)) is not None]
    return points if len(points) <= 2 * SPANS else [points[0], *_extremes(points), points[-1]]


def _extremes(points: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    size = -(-len(points) // SPANS)
    for begin in range(1, len(points) - 1, size):
        span = points[begin : min(begin + size, len(points) - 1)]
        yield from sorted({min(span, key=lambda point: point[1]), max(span, key=lambda point: point[1])})


def _labels(curves: Sequence[Curve]) -> list[str]:
    """The jobs' names, and their ids where names are equal, or look so when they are shortened."""
    short = [_shortened(curve.name, LONGEST_NAME) for curve in curves]
    times = Counter(short)
    return [
        name if times[name] == 1 else f"{_shortened(curve.name, LONGEST_NAME_WITH_ID)} {curve.id}"
        for name, curve in zip(short, curves, strict=True)
    ]


def _shortened(name: str, length: int) -> str:
    """Without its middle: names that belong together often differ in their ends."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[head + 1 - length :]}"


def _following_the_reader(svg: bytes) -> bytes:
    """The light drawing with a style sheet that makes it dark for who prefers that.

    matplotlib writes colours into `style` attributes, over which only `!important` wins. What knows no style sheets
    shows the light drawing.
    """
    light, dark = ((*colors[:4], *colors.jobs) for colors in (COLORS[Theme.LIGHT], COLORS[Theme.DARK]))
    rules = "".join(
        f'[style*="{what}: {before}"]{{{what}:{after} !important}}'
        for before, after in zip(light, dark, strict=True)
        for what in ("fill", "stroke")
    )
    head, defs, rest = svg.partition(b"<defs>")
    sheet = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return head + sheet.encode() + defs + rest
