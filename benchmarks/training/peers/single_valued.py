"""The data of the peers that take one value per field."""

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.training.measuring import parser

EMBEDDING_DIM = 18
TOWERS = (360, 200, 80)


class SingleValued(NamedTuple):
    """ids: int64 [N, F]. click, conversion: float32 [N]. sizes: of the F fields' hash ranges, by name."""

    ids: Tensor
    click: Tensor
    conversion: Tensor
    sizes: dict[str, int]
    num_user_fields: int


def parse_args(program: str, description: str | None) -> argparse.Namespace:
    options = parser(program, description)
    options.add_argument("--data", required=True, help="folder written by benchmarks.training.peer_data")
    options.add_argument("--rows", type=int, required=True, help="of all fields' tables, at least")
    return options.parse_args()


def load(folder: str, rows: int) -> SingleValued:
    """Tables larger than the data's hash ranges have rows that no impression uses."""
    info = json.loads((Path(folder) / "peer_data.json").read_text())
    factor = max(1.0, rows / sum(info["buckets"].values()))
    return SingleValued(
        **load_file(Path(folder) / "single.safetensors"),
        sizes={name: math.ceil(factor * size) for name, size in info["buckets"].items()},
        num_user_fields=info["num_user_fields"],
    )
