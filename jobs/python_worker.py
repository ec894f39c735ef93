"""What a Python worker of Spark does once for each data source, before its first task there."""

import gc
from functools import cache


@cache
def freeze_imports(source: str) -> None:
    """Take all that is imported by now out of the garbage collector's sight. source: whose kernels those are.

    Spark collects after every task, and numba alone brings hundreds of thousands of objects: 0.15 s
    a task.
    """
    gc.collect()
    gc.freeze()
