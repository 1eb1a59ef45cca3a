"""`python -m worker`: one worker on one device, until SIGTERM or Ctrl-C."""

import logging
import os
import subprocess
import sys

from app import logs
from app.fault_points import FaultError, arm
from app.processes import StopRequest, end_well_when_asked, end_with_parent, started_by_parent
from app.settings import Settings, SettingsError, load_settings
from app.store.errors import StoreError
from app.store.opening import open_database
from models.memory_estimate import readable
from worker.health import new_worker_id
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


def ask_device(wanted: str) -> subprocess.CompletedProcess[str]:
    """`worker.device`, run as a program."""
    command = [sys.executable, "-P", "-m", "worker.device", wanted]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def work(settings: Settings) -> None:
    database = open_database(settings.resolved_database_url)
    device, memory_bytes = find_device(settings.device)
    stop = StopRequest()
    stop.listen()
    log.info("ready: trains on %s with %s", device, readable(memory_bytes))
    runner = Runner(
        database,
        settings,
        new_worker_id(),
        device,
        stop,
        memory_bytes=memory_bytes,
        device_works=lambda: ask_device(device).returncode == 0,
    )
    runner.run()
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
    except (DeviceLost, FaultError, SettingsError, StoreError, OSError) as error:
        sys.exit(f"charsmith worker: {error}")


if __name__ == "__main__":
    main()
