"""`make bench`: measures this checkout on this machine and prints tables.

Figures that depend on the machine stand beside a figure of the machine itself, measured in the same run.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks.cluster import measure_cluster
from benchmarks.documents import PAGE, command_line, write_part
from benchmarks.figures import Report, report_of
from benchmarks.machine import machine
from benchmarks.options import Options, read_options
from benchmarks.quality import measure_quality
from benchmarks.queueing import measure_queueing
from benchmarks.sampling import measure_sampling
from benchmarks.scale import measure_scale
from benchmarks.scoring import measure_scoring
from benchmarks.service import measure_service
from benchmarks.serving import measure_serving
from benchmarks.speed import measure_speed
from benchmarks.upload import measure_upload

Measure = Callable[[Path, Options], list[Report]]


def _service(folder: Path, options: Options) -> list[Report]:
    return [report_of("Service", measure_service(folder, starts=5 if options.extent == "full" else 1))]


def _upload(folder: Path, options: Options) -> list[Report]:
    return [report_of("Upload", measure_upload(folder, options.megabytes))]


MEASURES: dict[str, Measure] = {
    "service": _service,
    "upload": _upload,
    "queue": measure_queueing,
    "cluster": measure_cluster,
    "sampling": lambda _, options: [*measure_sampling(options), measure_scoring(options)],
    "serving": measure_serving,
    "speed": lambda _, options: measure_speed(options),
    "scale": measure_scale,
    "quality": measure_quality,
}


def main(arguments: list[str]) -> None:
    options = read_options(arguments)
    console = Console(width=170)
    described = machine(options.threads)
    console.print(described, soft_wrap=True)
    for part in options.parts:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="charsmith-bench-") as folder:
            reports = MEASURES[part](Path(folder), options)
        for report in reports:
            report.show(console)
        console.print(f"{part}: measured in {time.perf_counter() - begin:.0f} s\n")
        if options.write_docs:
            write_part(PAGE, part, reports, described, command_line(arguments, part))


if __name__ == "__main__":
    main(sys.argv[1:])
