"""`python -m worker`: one worker on one device, until SIGTERM or Ctrl-C."""

import logging
import os
import sys
from contextlib import closing

from app import logs
from app.fault_points import FaultError, arm
from app.processes import StopRequest, end_well_when_asked, end_with_parent, started_by_parent
from app.settings import Settings, SettingsError, load_settings
from app.store.errors import StoreError
from app.store.opening import open_database
from models.memory_estimate import readable
from worker.executor import Executor, OwnDevice, ask_device
from worker.health import new_worker_id
from worker.ray_driver import ClusterError, connect
from worker.runner import DeviceLost, Runner

log = logging.getLogger("worker")


def find_device(wanted: str) -> tuple[str, int]:
    """The device's name and its memory in bytes, asked in another process: this one must never touch it.

    Exits when there is no such device.
    """
    answer = ask_device(wanted)
    if answer.returncode != 0:
        sys.exit(f"CHARSMITH_DEVICE: {answer.stderr.strip()}")
    if answer.stderr:
        log.warning("%s", answer.stderr.strip())
    device, memory_bytes = answer.stdout.split()
    return device, int(memory_bytes)


def find_executor(settings: Settings) -> Executor:
    """As the settings have it. Exits when there is no such device, ClusterError if there is no such cluster."""
    if settings.executor == "process":
        return OwnDevice(*find_device(settings.device), settings.torch_threads)
    return connect(settings.device, settings.torch_threads)


def work(settings: Settings) -> None:
    database = open_database(settings.resolved_database_url)
    executor = find_executor(settings)
    stop = StopRequest()
    stop.listen()  # after Ray, which listens itself
    memory = executor.memory_bytes
    where = f"on {executor.device}" + (f" with {readable(memory)}" if memory is not None else "")
    log.info("ready: trains %s", where if settings.executor == "process" else f"{where} on a Ray cluster")
    with closing(executor):
        Runner(database, settings, new_worker_id(), executor, stop).run()
    database.close()


def main() -> None:
    end_well_when_asked()
    if started_by_parent():
        end_with_parent()
    try:
        settings = load_settings()
        logs.set_up("worker", settings.log_level, settings.log_format)
        arm(os.environ)
        settings.temporary_dir.mkdir(parents=True, exist_ok=True)
        work(settings)
    except (ClusterError, DeviceLost, FaultError, SettingsError, StoreError, OSError) as error:
        sys.exit(f"charsmith worker: {error}")


if __name__ == "__main__":
    main()
