"""The data of the peers that take one value per field."""

import json
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import Tensor

EMBEDDING_DIM = 18
TOWERS = (360, 200, 80)


class SingleValued(NamedTuple):
    """ids: int64 [N, F]. click, conversion: float32 [N]. sizes: of the F fields' hash ranges, by name."""

    ids: Tensor
    click: Tensor
    conversion: Tensor
    sizes: dict[str, int]
    num_user_fields: int


def load(folder: str) -> SingleValued:
    info = json.loads((Path(folder) / "peer_data.json").read_text())
    return SingleValued(
        **load_file(Path(folder) / "single.safetensors"),
        sizes=info["buckets"],
        num_user_fields=info["num_user_fields"],
    )
