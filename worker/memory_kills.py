"""How often this machine's kernel has ended a process for lack of memory.

Knows no process. The count is of the whole machine, other containers included, so alone it says nothing; together with
a child of ours that was killed meanwhile, by nobody of ours, it says why.
"""

import re
from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def memory_kills() -> int:
    """Since the machine started, whether it was the machine's memory or a control group's. 0 where nobody counts."""
    try:
        counted = re.search(r"^oom_kill (\d+)$", VMSTAT.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(counted[1]) if counted else 0
