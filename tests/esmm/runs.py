"""Small training runs for the tests: their inputs, and what they left in their folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.torch import load_file

from esmm.checkpoints import state as checkpoint
from esmm.predict import predict
from tests.esmm.sample_files import write_samples
from tests.esmm.workers import ONE_WORKER

CONFIG = {
    "model": {"embedding_dim": 4, "towers": [8, 4]},
    "train": {"batch_size": 32, "epochs": 2, "log_every": 3, "keep_checkpoints": 1},
}
TIMES = {"impressions_per_second", "loader_share", "train_seconds"}


class Inputs:
    """Samples and a configuration, and the arguments that use them."""

    def __init__(self, folder: Path) -> None:
        self.train, self.valid, self.config = folder / "train", folder / "valid", folder / "config.yaml"
        write_samples(self.train, num_rows=60, seed=1)
        write_samples(self.valid, num_rows=30, seed=2)
        self.config.write_text(yaml.safe_dump(CONFIG))

    def arguments(self, run: Path, *more: str, **changed: Path) -> list[str]:
        """Arguments of esmm.train; `a.b=value` ones are settings."""
        options = {"config": self.config, "train": self.train, "valid": self.valid, "run": run, **changed}
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return given + [part for text in more for part in (["--set", text] if _is_setting(text) else [text])]


def _is_setting(text: str) -> bool:
    return "=" in text and not text.startswith("-")


def log_of(run: Path) -> list[dict[str, Any]]:
    """The entries of train.jsonl without what a clock has measured."""
    entries = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in entries]


def numbers_of(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a checkpoint; the shards of the table put together."""
    state = checkpoint.read_state(folder)
    numbers = {name: tensor.numpy() for name, tensor in load_file(folder / checkpoint.DENSE_FILE).items()}
    shards = [load_file(folder / checkpoint.table_file(i, state.world_size)) for i in range(state.world_size)]
    for name in shards[0]:
        parts = [shard[name].numpy() for shard in shards]
        whole = np.empty((state.num_rows, *parts[0].shape[1:]), parts[0].dtype)
        for rank, part in enumerate(parts):
            whole[rank :: state.world_size] = part
        numbers[name] = whole
    return numbers


def assert_same_run(found: Path, expected: Path) -> None:
    """The same log, and the same bits in the newest checkpoint."""
    assert log_of(found) == log_of(expected)
    numbers, others = numbers_of(checkpoint.latest(found)), numbers_of(checkpoint.latest(expected))
    assert numbers.keys() == others.keys()
    for name, values in numbers.items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)


def cut_off(run: Path, step: int) -> None:
    """Make a complete run one that crashed some steps after its checkpoint of `step`."""
    (run / "_SUCCESS").unlink()
    for folder in (run / "checkpoints").iterdir():
        if checkpoint.step_of(folder) > step:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    assert checkpoint.step_of(checkpoint.latest(run)) == step


def predictions_of(run: Path, samples: Path, out: Path, *more: str) -> pa.Table:
    """What one worker predicts."""
    predict(ONE_WORKER, ["--run", str(run), "--samples", str(samples), "--out", str(out), *more])
    return read_predictions(out)


def read_predictions(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))
