"""torch-rechub's ESMM by its own trainer, batches ready in memory.

    build/peers-venv/bin/python -m benchmarks.training.peers.rechub --data DIR --rows 1048576 \
        --cases 1024:fp32 --out FILE
"""

from itertools import cycle

import torch
from torch import Tensor
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.multi_task import ESMM
from torch_rechub.trainers import MTLTrainer

from benchmarks.training.measuring import Case, Feed, run_cases
from benchmarks.training.peers.single_valued import EMBEDDING_DIM, TOWERS, SingleValued, load, parse_args

Ready = tuple[dict[str, Tensor], Tensor]


def make_trainer(data: SingleValued) -> MTLTrainer:
    """Its defaults: Adam with weight decay 1e-5, batch norm in the towers."""
    features = [
        SparseFeature(name, vocab_size=size, embed_dim=EMBEDDING_DIM) for name, size in data.sizes.items()
    ]
    user, item = features[: data.num_user_fields], features[data.num_user_fields :]
    towers = [{"dims": list(TOWERS)} for _ in range(2)]
    return MTLTrainer(ESMM(user, item, *towers), task_types=["classification"] * 3)


def make_batches(data: SingleValued, size: int) -> list[Ready]:
    """The form that its data loader gives: a column per field, and labels of CVR, CTR and CTCVR."""
    labels = torch.stack([data.conversion, data.click, data.click * data.conversion], dim=1)
    columns = [ids.t().contiguous() for ids in data.ids.split(size)]
    ready = [dict(zip(data.sizes, part, strict=True)) for part in columns]
    return [batch for batch in zip(ready, labels.split(size), strict=True) if len(batch[1]) == size]


def main() -> None:
    args = parse_args("benchmarks.training.peers.rechub", __doc__)
    data = load(args.data, args.rows)

    def run(case: Case) -> Feed[Ready]:
        trainer = make_trainer(data)
        feed = Feed(cycle(make_batches(data, case.batch_size)), args.seconds)
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
            trainer.train_one_epoch(feed)
        return feed

    run_cases(args, run)


if __name__ == "__main__":
    main()
