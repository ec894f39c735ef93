"""The same run again, number by number."""

import os

import torch


def set_deterministic(wanted: bool) -> None:
    """Let torch refuse, or replace, operations whose result may differ from run to run; or not.

    On a CPU the training has none: with the same number of workers and threads two runs are equal anyhow.
    On a GPU sums by atomic additions come in any order, and cuBLAS may split its own over several streams.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at cuBLAS's first use
    torch.use_deterministic_algorithms(wanted)
