"""The costs of `benchmarks.scale` as a picture: a column for each axis, time above, memory below."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from benchmarks.scale_probe import Cost

Column = tuple[str, Sequence[int], Sequence[Cost]]

COLOR = "#c2410c"


def draw(columns: Sequence[Column]) -> bytes:
    """An SVG whose text stays text: small, and the same bytes for the same costs."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "charsmith", "font.size": 12}):
        figure = Figure(figsize=(4 * len(columns), 6.5), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(2, len(columns), squeeze=False, sharex="col")
        for (name, values, costs), (above, below) in zip(columns, grid.T, strict=True):
            steps_ms, peaks_mib = [cost.step_ms for cost in costs], [cost.peak_mib for cost in costs]
            _panel(above, values, steps_ms, "ms per step")
            above.set_yscale("log")  # what is proportional is a line of slope 1
            above.set_ylim(min(steps_ms) / 3, max(steps_ms) * 3)
            _panel(below, values, peaks_mib, "peak resident memory, MiB")
            below.set_ylim(0, 1.15 * max(peaks_mib))
            below.set_xlabel(name)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()


def _panel(axes: Axes, values: Sequence[int], costs: Sequence[float], label: str) -> None:
    axes.plot(values, costs, color=COLOR, marker="o", linewidth=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel(label)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
