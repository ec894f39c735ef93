"""deepctr-torch's ESMM, batches ready in memory.

    build/peers-venv/bin/python -m benchmarks.training.peers.deepctr --data DIR --rows 1048576 \
        --cases 1024:fp32 --out FILE

Its `fit` takes whole arrays only and deals them out row by row; the step below is what `fit` does with a
batch, without that cost.
"""

from itertools import cycle

import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import ESMM
from torch import Tensor

from benchmarks.training.measuring import Case, Feed, run_cases
from benchmarks.training.peers.single_valued import EMBEDDING_DIM, TOWERS, SingleValued, load, parse_args

Ready = tuple[Tensor, Tensor]


def make_model(data: SingleValued) -> ESMM:
    """Its defaults: Adam, L2 of 1e-5 on the embedding."""
    columns = [SparseFeat(name, size, embedding_dim=EMBEDDING_DIM) for name, size in data.sizes.items()]
    model = ESMM(columns, tower_dnn_hidden_units=TOWERS)
    model.compile("adam", loss=["binary_crossentropy"] * 2, metrics=[])
    return model.train()


def make_batches(data: SingleValued, size: int) -> list[Ready]:
    """A row of ids per impression, and labels of CTR and CTCVR."""
    labels = torch.stack([data.click, data.click * data.conversion], dim=1)
    pairs = zip(data.ids.split(size), labels.split(size), strict=True)
    return [(ids, label) for ids, label in pairs if len(label) == size]


def train(model: ESMM, batches: Feed[Ready]) -> None:
    """The body of the loop in BaseModel.fit of version 0.3.0."""
    for ids, labels in batches:
        y_pred, y = model(ids.float()), labels.float()
        model.optim.zero_grad()
        losses = [loss(y_pred[:, i], y[:, i], reduction="sum") for i, loss in enumerate(model.loss_func)]
        loss = sum(losses)
        total = loss + model.get_regularization_loss() + model.aux_loss
        loss.item(), total.item()
        total.backward()
        model.optim.step()


def main() -> None:
    args = parse_args("benchmarks.training.peers.deepctr", __doc__)
    data = load(args.data, args.rows)

    def run(case: Case) -> Feed[Ready]:
        model = make_model(data)
        feed = Feed(cycle(make_batches(data, case.batch_size)), args.seconds)
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
            train(model, feed)
        return feed

    run_cases(args, run)


if __name__ == "__main__":
    main()
