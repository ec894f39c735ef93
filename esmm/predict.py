"""Predict with a trained run: one row per impression, in one Parquet file per worker.

    python -m esmm.predict --run runs/demo --samples samples/split=test --out runs/demo/predictions
    horovodrun -np 2 -H localhost:2 python -m esmm.predict ...      two workers share the samples

By the newest good checkpoint or, where early stopping was on, that of the best validation. --calibration
mends the probabilities by a file of jobs.fit_calibration. Samples may have fields that the run does not know.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cli.arguments import CommandParser
from cli.version import WRITTEN_BY
from esmm import calibration, kept
from esmm.batch import Batch
from esmm.checkpoints import choosing, run_folder
from esmm.checkpoints.loading import load_model
from esmm.checkpoints.state import State, require_fit
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.model.model import Model
from esmm.training.memory_check import require_room
from esmm.training.train_step import make_model
from esmm.training.validation import score
from esmm.workers.process import run
from esmm.workers.world import World
from schemas import predictions, samples
from schemas.calibration import Calibration
from schemas.calibration import read as read_calibration
from schemas.manifest import schema_of
from schemas.schema import Schema
from storage import outputs, staging
from storage.filesystems import filesystem
from storage.json_files import write_json

ROWS_PER_ROW_GROUP = 1 << 17


@dataclass(frozen=True)
class PredictOptions:
    """What a prediction is told; `esmm.predict --help` says what each option means."""

    run: Path
    samples: str
    out: str
    checkpoint: str | None
    device: Literal["auto", "cpu", "cuda"] | None
    overwrite: bool
    keep: tuple[str, ...]
    calibration: str | None


def parse_arguments(argv: list[str]) -> PredictOptions:
    """The command line; see the top of this file."""
    parser = CommandParser("esmm.predict", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that esmm.train has written")
    parser.add_argument("--samples", required=True, help="folder of samples to predict")
    parser.add_argument("--out", required=True, help="folder to write, one Parquet file per worker")
    parser.add_argument("--checkpoint", metavar="step-N", help="another checkpoint of the run")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        help="to compute on, if not as the run's train.device says",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that stand there")
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="FIELD",
        help="a field to add as column field_FIELD: its bucket, or how many ids it has; may be repeated",
    )
    parser.add_argument("--calibration", metavar="FILE", help="of jobs.fit_calibration, for this run")
    options = vars(parser.parse_args(argv))
    return PredictOptions(**{**options, "keep": tuple(options["keep"])})


def predict(world: World, options: PredictOptions) -> None:
    """One prediction run, on this worker."""
    world.on_rank_zero(lambda: outputs.refuse_taken(options.out, predictions.OUTPUT, options.overwrite))
    with world.agree():
        config = run_folder.read_config(options.run)
        found = read_calibration(options.calibration) if options.calibration else None
    world = world.use(options.device or config.train.device)
    path, state = checkpoint_of(options, world)
    known = schema_of(state.schema)
    loader = Loader.for_run([options.samples], config, world, with_keys=True, schema=known)
    with world.agree():
        kept.require_fields(options.keep, loader.schema)
    model = load(path, state, config, loader, world)
    with ExitStack() as stack:
        staged = world.on_rank_zero(lambda: stack.enter_context(staging.beside(options.out)))
        rows = torch.zeros(world.size, dtype=torch.int64)  # of every rank's file
        columns = predictions.arrow_schema(loader.schema, options.keep)
        scored: Iterator[tuple[Batch, Tensor]] = score(model, loader, world)
        if found is not None:
            scored = calibration.apply(found, scored)
        tables = _tables(scored, loader.schema, options, columns)
        rows[world.rank] = _write_part(f"{staged}/{_part(world.rank)}", columns, tables)
        world.all_reduce_([rows], "rows")
        world.barrier()
        if world.is_rank_zero:
            _publish(staged, _manifest(rows.tolist(), options, state, loader.schema, found), options)


def checkpoint_of(options: PredictOptions, world: World) -> tuple[Path, State]:
    """The checkpoint to predict with."""
    if options.checkpoint:
        return choosing.named(options.run, options.checkpoint, world)
    return choosing.for_predictions(options.run, world)


def load(path: Path, state: State, config: Config, loader: Loader, world: World) -> Model:
    """The model of a checkpoint, which must fit the loader's samples."""
    with world.agree():
        require_fit(path, state, config.model, loader.manifest)
        require_room(config, loader.num_rows, training=False, world=world)
    model = make_model(config.model, loader.schema, world)
    with world.agree():
        load_model(path, state, model)
    return model


def _part(rank: int) -> str:
    return f"part-{rank:05d}.parquet"


def _write_part(path: str, columns: pa.Schema, tables: Iterator[pa.Table]) -> int:
    """Write one worker's predictions; a worker without any writes a file without rows."""
    fs, target = filesystem(path)
    rows = 0
    waiting = [columns.empty_table()]
    with fs.open(target, "wb") as stream, pq.ParquetWriter(stream, columns) as writer:
        for table in tables:
            waiting.append(table)
            rows += table.num_rows
            if sum(one.num_rows for one in waiting) >= ROWS_PER_ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return rows


def _manifest(
    rows: list[int], options: PredictOptions, state: State, schema: Schema, found: Calibration | None
) -> predictions.Manifest:
    """What the files are. rows: of each rank's file. schema: of the samples."""
    content = predictions.Manifest(
        rows=sum(rows),
        files=[{"name": _part(rank), "rows": num} for rank, num in enumerate(rows)],
        run=str(options.run),
        step=state.step,
        epoch=state.epoch,
        schema=schema.to_dict(),
        written_by=WRITTEN_BY,
    )
    if options.keep:
        content["kept"] = list(options.keep)
    if found is not None:
        calibration.warn_of_another(str(options.calibration), found, str(options.run), state.step)
        content["calibration"] = found
    return content


def _publish(staged: str, manifest: predictions.Manifest, options: PredictOptions) -> None:
    """Put the files in their place, with what they are."""
    write_json(f"{staged}/{samples.MANIFEST_NAME}", dict(manifest))
    outputs.publish(staged, options.out, predictions.OUTPUT, options.overwrite)
    print(
        f"{options.out}: predictions of {manifest['rows']} impressions, step {manifest['step']} of "
        f"{options.run}"
    )


def _tables(
    scored: Iterator[tuple[Batch, Tensor]], schema: Schema, options: PredictOptions, columns: pa.Schema
) -> Iterator[pa.Table]:
    """Keys, probabilities and kept fields of batches in the layout of `schemas.predictions`."""
    for batch, scores in scored:
        assert batch.keys is not None, "the loader was opened with_keys"
        table = batch.keys
        for name, column in zip(predictions.PROBABILITIES, scores.numpy().T, strict=True):
            table = table.append_column(name, pa.array(column))
        for name in options.keep:
            found = kept.values(batch, schema, name)
            table = table.append_column(f"{predictions.KEPT_FIELD}{name}", pa.array(found))
        yield table.select(columns.names).cast(columns)


if __name__ == "__main__":
    run(partial(predict, options=parse_arguments(sys.argv[1:])))
