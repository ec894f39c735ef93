"""What a Python worker of Spark does once, before its first task."""

import gc
from functools import cache


@cache
def freeze_imports() -> None:
    """Import the kernels, then take everything imported out of the garbage collector's sight.

    Spark collects after every task, and numba alone brings hundreds of thousands of objects: 0.15 s
    a task.
    """
    from jobs.raw_logs import parse_kernel  # noqa: F401
    from jobs.sample_writer import (
        quarantine_file,  # noqa: F401
        sample_file,  # noqa: F401
        unpack,  # noqa: F401
    )

    gc.collect()
    gc.freeze()
