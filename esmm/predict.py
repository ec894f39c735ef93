"""Predict with a trained run, one row per impression. See `python -m esmm.predict --help`."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cli.version import WRITTEN_BY
from esmm.batch import Batch
from esmm.checkpoints import choosing, run_folder
from esmm.checkpoints import state as checkpoint
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.model.model import Model
from esmm.train import num_rows, open_loader
from esmm.training.memory_check import require_room
from esmm.training.train_step import make_model
from esmm.training.validation import score
from esmm.workers.process import run
from esmm.workers.world import World
from schemas import predictions, samples
from storage import outputs, staging
from storage.filesystems import filesystem
from storage.json_files import write_json

ROWS_PER_ROW_GROUP = 1 << 17
EXAMPLE = """example:
  python -m esmm.predict --run runs/demo --samples samples/split=test --out runs/demo/predictions
"""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m esmm.predict",
        description="Write the predictions of a run: of the newest checkpoint or, with early stopping, the "
        "one of the best validation. Works under horovodrun too.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", required=True, help="folder that esmm.train has written")
    parser.add_argument("--samples", required=True, help="folder of samples to predict")
    parser.add_argument("--out", required=True, help="folder to write, one Parquet file per worker")
    parser.add_argument("--checkpoint", metavar="step-N", help="another checkpoint of the run")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        help="to compute on, if not as the run's train.device says",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that stand there")
    return parser.parse_args(arguments)


def predict(world: World, arguments: list[str]) -> None:
    """One prediction run, on this worker."""
    options = parse_arguments(arguments)
    world.on_rank_zero(lambda: outputs.refuse_taken(options.out, predictions.OUTPUT, options.overwrite))
    with world.agree():
        config = run_folder.read_config(Path(options.run))
    world = world.use(options.device or config.train.device)
    with world.agree():
        loader = open_loader(options.samples, config, world, 0, with_keys=True)
    model, state = load(Path(options.run), options.checkpoint, config, loader, world)
    with ExitStack() as stack:
        staged = world.on_rank_zero(lambda: stack.enter_context(staging.beside(options.out)))
        rows = torch.zeros(world.size, dtype=torch.int64)  # of every rank's file
        rows[world.rank] = _write_part(f"{staged}/{_part(world.rank)}", score(model, loader, world))
        world.all_reduce_([rows], "rows")
        world.barrier()
        if world.is_rank_zero:
            total = int(rows.sum())
            content = predictions.Manifest(
                rows=total,
                files=[{"name": _part(rank), "rows": num} for rank, num in enumerate(rows.tolist())],
                run=options.run,
                step=state.step,
                epoch=state.epoch,
                written_by=WRITTEN_BY,
            )
            write_json(f"{staged}/{samples.MANIFEST_NAME}", dict(content))
            outputs.publish(staged, options.out, predictions.OUTPUT, options.overwrite)
            print(f"{options.out}: predictions of {total} impressions, step {state.step} of {options.run}")


def load(
    run: Path, name: str | None, config: Config, loader: Loader, world: World
) -> tuple[Model, checkpoint.State]:
    """The model of a run's checkpoint, which must fit the loader's samples. name: if not the usual one."""
    path, state = choosing.named(run, name, world) if name else choosing.for_predictions(run, world)
    rows, fingerprint = num_rows(loader), loader.manifest["fingerprint"]
    with world.agree():
        checkpoint.require_fit(path, state, config.model, fingerprint, rows)
        require_room(config, rows, training=False, world=world)
    model = make_model(config.model, rows, world)
    with world.agree():
        checkpoint.load_model(path, state, model)
    return model, state


def _part(rank: int) -> str:
    return f"part-{rank:05d}.parquet"


def _write_part(path: str, scored: Iterator[tuple[Batch, Tensor]]) -> int:
    """Write one worker's predictions; a worker without any writes a file without rows."""
    fs, target = filesystem(path)
    rows, waiting = 0, [predictions.arrow_schema().empty_table()]
    with fs.open(target, "wb") as stream, pq.ParquetWriter(stream, predictions.arrow_schema()) as writer:
        for batch, scores in scored:
            waiting.append(_to_table(batch, scores))
            rows += batch.num_impressions
            if sum(table.num_rows for table in waiting) >= ROWS_PER_ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return rows


def _to_table(batch: Batch, scores: Tensor) -> pa.Table:
    """Keys and probabilities of a batch in the layout of `schemas.predictions`."""
    assert batch.keys is not None, "the loader was opened with_keys"
    table = batch.keys
    for name, column in zip(predictions.PROBABILITIES, scores.numpy().T, strict=True):
        table = table.append_column(name, pa.array(column))
    return table.select(predictions.arrow_schema().names).cast(predictions.arrow_schema())


if __name__ == "__main__":
    run(lambda world: predict(world, sys.argv[1:]))
