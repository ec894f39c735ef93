"""What a Python worker of Spark does once, before its first task."""

import gc
from functools import cache


@cache
def settle() -> None:
    """Import the kernels, then take everything imported out of the garbage collector's sight.

    Spark collects after every task, and numba alone brings hundreds of thousands of objects: 0.15 s
    a task.
    """
    from jobs import parse_kernel, quarantine, sample_file, unpack  # noqa: F401

    gc.collect()
    gc.freeze()
