"""A whole training step on FBGEMM's tables, the engine of TorchRec: our layout, batches ready in memory.

    build/peers-venv/bin/python -m benchmarks.training.peers.fbgemm --data DIR --cases 1024:fp32 --out FILE

One table holds all fields, as ours does, so all bags of a batch are one look-up of one feature. Pooling,
merging of equal ids and row-wise Adagrad are FBGEMM's; the towers are ours, first layer split in two.
"""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import fbgemm_gpu  # noqa: F401  (its operators)
import torch
import torch.nn.functional as F
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks.training.measuring import Case, Feed, parser, run_cases

ROWS = 1 << 20
DIM = 20  # a multiple of 4, which FBGEMM demands; ours is 18
FIRST, REST = 360, (200, 80)

Ready = dict[str, Tensor]


class Network(nn.Module):
    """The two towers; the context half of their first layers is computed once per context."""

    def __init__(self, num_user_fields: int, num_impression_fields: int) -> None:
        super().__init__()
        self.context = nn.Linear(num_user_fields * DIM, 2 * FIRST)
        self.item = nn.Linear(num_impression_fields * DIM, 2 * FIRST, bias=False)
        self.towers = nn.ModuleList(self._tower() for _ in range(2))

    @staticmethod
    def _tower() -> nn.Sequential:
        second, third = REST
        inplace = {"inplace": True}
        layers = [nn.Linear(FIRST, second), nn.ReLU(**inplace), nn.Linear(second, third), nn.ReLU(**inplace)]
        return nn.Sequential(*layers, nn.Linear(third, 1))

    def forward(self, pooled: Tensor, context_index: Tensor) -> list[Tensor]:
        """Bags, owner by owner, [F_u U + F_i B, D], context_index [B] -> logits of CTR and CVR, each [B]."""
        item_bags = self.item.in_features // DIM * context_index.shape[0]
        user, item = pooled.split([pooled.shape[0] - item_bags, item_bags])
        shared = self.context(user.view(-1, self.context.in_features)).index_select(0, context_index)
        item_weight = self.item.weight.t()
        hidden = F.relu_(torch.addmm(shared, item.view(-1, self.item.in_features), item_weight))
        return [
            tower(part).squeeze(1).float()
            for tower, part in zip(self.towers, hidden.chunk(2, 1), strict=True)
        ]


def make_table() -> Any:
    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.05,
        eps=1e-8,
        pooling_mode=PoolingMode.SUM,
    )
    table.init_embedding_weights_uniform(-0.05, 0.05)
    return table


def loss_sum(ctr: Tensor, cvr: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
    """ESMM's loss in log space, as in esmm/model/esmm.py."""
    log_click, log_none = F.logsigmoid(ctr), F.logsigmoid(-ctr)
    log_not_both = torch.logaddexp(log_none, log_click + F.logsigmoid(-cvr))
    log_both = log_click + F.logsigmoid(cvr)
    both = click * conversion
    return -(torch.lerp(log_none, log_click, click) + torch.lerp(log_not_both, log_both, both)).sum()


def train(table: Any, network: Network, batches: Feed[Ready], bf16: bool) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, fused=True)
    for batch in batches:
        pooled = table(batch["ids"], batch["offsets"], per_sample_weights=batch["weights"])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            ctr, cvr = network(pooled, batch["context_index"])
        loss = loss_sum(ctr, cvr, batch["click"], batch["conversion"]) / batch["click"].shape[0]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # FBGEMM updates its table here
        optimizer.step()


def load(path: str, size: int) -> list[Ready]:
    """The batches of one size, in their order."""
    batches: dict[int, Ready] = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118  (it is no dictionary)
            of_size, number, name = key.split("/")
            if int(of_size) == size:
                batches.setdefault(int(number), {})[name] = file.get_tensor(key)
    return [batches[number] for number in sorted(batches)]


def make_network(folder: str) -> Network:
    """For as many fields as the data has."""
    info = json.loads((Path(folder) / "peer_data.json").read_text())
    num_user_fields = info["num_user_fields"]
    return Network(num_user_fields, len(info["buckets"]) - num_user_fields)


def main() -> None:
    options = parser("benchmarks.training.peers.fbgemm", __doc__)
    options.add_argument("--data", required=True, help="folder written by benchmarks.training.peer_data")
    args = options.parse_args()

    def run(case: Case) -> Feed[Ready]:
        torch.manual_seed(0)
        feed = Feed(cycle(load(f"{args.data}/layout.safetensors", case.batch_size)), args.seconds)
        train(make_table(), make_network(args.data), feed, case.precision == "bf16")
        return feed

    run_cases(args, run)


if __name__ == "__main__":
    main()
