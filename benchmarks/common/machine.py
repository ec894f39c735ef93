"""What the figures were measured on."""

import os
import platform
from datetime import date
from pathlib import Path


def machine() -> dict[str, str]:
    """Date, processor and the number of cores that this process may use."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"date": date.today().isoformat(), "processor": model, "cores": str(len(os.sched_getaffinity(0)))}
