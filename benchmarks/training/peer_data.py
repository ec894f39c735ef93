"""What the peers train on, made of our own batches: benchmarks/training/peers/ reads it.

single.safetensors: for torch-rechub and deepctr-torch, which take one value per field: `ids` int64 [N, F],
    the first id of every field within its own hash range (0 = missing), `click` and `conversion` [N].
layout.safetensors: for FBGEMM, the de-duplicated layout: "batch size/number/name" are the tensors of a batch.
"""

from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.training.train_step import BATCHES, full_batches
from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.embedding.bags import Bags, field_offsets
from schemas.schema import Schema
from storage.json_files import write_json

SINGLE = "single.safetensors"
LAYOUT = "layout.safetensors"
INFO = "peer_data.json"
SINGLE_IMPRESSIONS = 1 << 17


def write(samples: str, out: Path, batch_sizes: list[int]) -> None:
    """Both files, and in peer_data.json the hash ranges of the fields, the user's first."""
    out.mkdir(parents=True, exist_ok=True)
    largest = max(batch_sizes)
    loader = Loader(samples, batch_size=largest, shuffle_window=1024)
    schema = loader.schema
    batches = islice(full_batches(loader), max(1, SINGLE_IMPRESSIONS // largest))
    parts = [single_valued(batch, schema) for batch in batches]
    save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, out / SINGLE)
    layout: dict[str, Tensor] = {}
    for size in batch_sizes:
        loader = Loader(samples, batch_size=size, shuffle_window=1024)
        for number, batch in enumerate(islice(full_batches(loader), BATCHES)):
            layout |= {f"{size}/{number}/{name}": tensor for name, tensor in deduplicated(batch).items()}
    save_file(layout, out / LAYOUT)
    write_json(str(out / INFO), {"buckets": schema.buckets, "num_user_fields": len(schema.user_fields)})


def single_valued(batch: Batch, schema: Schema) -> dict[str, Tensor]:
    """The first id of every field and impression, within the field's own range."""
    user = first_ids(batch.user, batch.num_user_fields).index_select(0, batch.context_index)
    ids = torch.cat([user, first_ids(batch.impression, batch.num_impression_fields)], dim=1)
    offsets = torch.tensor(list(field_offsets(schema.buckets).values()))
    return {
        "ids": (ids - offsets).clamp_(min=0),  # first_ids gives -1 for an empty bag
        "click": batch.click,
        "conversion": batch.conversion,
    }


def first_ids(bags: Bags, num_fields: int) -> Tensor:
    """Bags of N owners -> int64 [N, num_fields]; -1 where a bag is empty."""
    starts = bags.offsets[:-1]
    lengths = bags.offsets.diff()
    padded = torch.cat([bags.ids, bags.ids.new_tensor([-1])])
    first = torch.where(lengths > 0, padded.index_select(0, starts), -1)
    return first.view(-1, num_fields)


def deduplicated(batch: Batch) -> dict[str, Tensor]:
    """The bags of contexts, then of impressions, and which context each impression has."""
    return {
        "ids": batch.bags.ids,
        "weights": batch.bags.weights,
        "offsets": batch.bags.offsets,
        "context_index": batch.context_index,
        "click": batch.click,
        "conversion": batch.conversion,
    }
