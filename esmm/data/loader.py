"""The loader: samples in, batches of one rank out.

`schedule` says which row groups a rank reads, and in which order. `petastorm_reader` reads them on
Petastorm's threads, where `row_group` checks each; `broken_row_groups` decides on those that cannot be read;
`assemble` cuts the others into batches on one thread of its own, a few batches ahead of the training step.
"""

import logging
import time
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Self

import pyarrow as pa

from cli.errors import InputError
from esmm.batch import Batch
from esmm.config import Config
from esmm.data.arrow_files import ArrowFiles
from esmm.data.assemble import Gatherer, Ranges, no_ranges, permuted, rebatch
from esmm.data.broken_row_groups import BrokenRowGroups
from esmm.data.petastorm_reader import read_in_order
from esmm.data.prefetch import prefetch
from esmm.data.row_group import RowLayout, Rows, from_table
from esmm.data.sample_check import check_files, check_num_rows
from esmm.data.schedule import Position, RowGroup, Schedule, Window, make_schedule, row_groups, window_rng
from esmm.workers.world import World
from schemas import joined
from schemas import manifest as manifests
from schemas.manifest import Manifest
from schemas.schema import Schema

log = logging.getLogger(__name__)

PREFETCHED_BATCHES = 4


class Loader:
    """Batches of one rank from a published folder of samples.

    batch_size: impressions per step over all ranks. manifest: of the folder, where it has been read
    already. shuffle_window: contexts shuffled together, 0 for file order. with_keys: batches carry
    sample_id, context_id and user_id. num_threads: that read and decode. skip_broken: leave out row groups
    that are damaged; the steps and what is in them stay what they are, but the impressions are missing.
    max_broken_share: of the samples' impressions, that may be.
    The order depends on seed, position, rank and world size only, not on the number of threads.

    manifest and schema: of the samples, num_rows: of the table that they need. wait_seconds: spent so far
    by the consumer waiting for batches.

    Raises InputError for a folder that is no published sample set or whose files are not those of its
    manifest; `epoch` raises it for a file that cannot be read, and for more of them than may be left out.
    """

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int,
        manifest: Manifest | None = None,
        rank: int = 0,
        world_size: int = 1,
        shuffle_window: int = 0,
        seed: int = 0,
        with_keys: bool = False,
        pin_memory: bool = False,
        num_threads: int = 2,
        skip_broken: bool = False,
        max_broken_share: float = 0.01,
    ) -> None:
        self.folder = str(folder).rstrip("/")
        self.manifest = manifest or manifests.read(self.folder)
        self.schema = manifests.schema_of(self.manifest)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.shuffle_window = shuffle_window
        self.seed = seed
        self.with_keys = with_keys
        self.pin_memory = pin_memory
        self.num_threads = num_threads
        self.wait_seconds = 0.0
        self._epoch: int | None = None  # that is read, or was the last to be
        self._files = ArrowFiles(self.folder, self.schema)
        self._groups = row_groups(self.manifest)
        self._broken = BrokenRowGroups(
            self.folder, self._groups, allowed=skip_broken, max_share=max_broken_share
        )
        self.num_rows = check_num_rows(self.folder, self.schema)
        self._layout = RowLayout.of(self.schema, with_keys)
        self._gather = Gatherer(self.schema, with_keys, pin_memory)
        check_files(self.folder, self.manifest)
        if batch_size < world_size:
            raise InputError(
                f"train.batch_size: expected at least one impression per worker ({world_size}), "
                f"found {batch_size}."
            )
        self._tell_of_few_data(self.plan(Position.start(0)))

    @classmethod
    def for_run(
        cls,
        folders: list[str],
        config: Config,
        world: World,
        shuffle_window: int = 0,
        with_keys: bool = False,
        schema: Schema | None = None,
    ) -> Self:
        """This rank's loader for training, validation or, with_keys, prediction.

        schema: what to read of the samples, where they have more fields; None: all of them. All ranks call it
        together: each must find the samples, rank 0 alone reads their manifests.
        """
        with world.qualify():
            for one in folders:
                manifests.require_published(one)
        folder, manifest = world.on_rank_zero(lambda: joined.read(folders))
        if schema is not None:
            whole, manifest = manifest, manifests.narrowed(manifest, schema)
            if manifest is not whole and world.is_rank_zero:
                unknown = manifests.schema_of(whole).index.keys() - schema.index.keys()
                log.info("%s: fields that are not read: %s", folder, ", ".join(sorted(unknown)) or "none")
        with world.qualify():
            return cls(
                folder,
                batch_size=config.train.batch_size,
                manifest=manifest,
                rank=world.rank,
                world_size=world.size,
                shuffle_window=shuffle_window,
                seed=config.train.seed,
                with_keys=with_keys,
                pin_memory=world.device.type == "cuda",
                # Whoever predicts wants all rows or none.
                skip_broken=config.loader.skip_broken_row_groups and not with_keys,
                max_broken_share=config.loader.max_broken_share,
            )

    def _tell_of_few_data(self, schedule: Schedule) -> None:
        """What works, but is perhaps not what was meant."""
        impressions = schedule.num_impressions
        if not any(impressions):
            raise InputError(
                f"{self.folder}: expected at least one impression, found none. Build other samples."
            )
        if self.batch_size > sum(impressions):
            log.info(
                "%s: %d impressions, train.batch_size is %d: a pass is %d step(s)",
                self.folder,
                sum(impressions),
                self.batch_size,
                schedule.steps,
            )
        if 0 in impressions:
            log.info(
                "%s: %d row groups for %d workers: %d of them take part with empty batches",
                self.folder,
                len(self._groups),
                self.world_size,
                impressions.count(0),
            )

    def plan(self, position: Position) -> Schedule:
        """What is left of the leg that goes on or begins at a position: the same on all ranks."""
        return make_schedule(
            self._groups,
            position,
            workers=self.world_size,
            batch_size=self.batch_size,
            shuffle_window=self.shuffle_window,
            seed=self.seed,
        )

    def after(self, position: Position, steps: int) -> Position:
        """The position when this loader and those of the other ranks have made so many more steps."""
        return position.after(steps, self.world_size, self.batch_size)

    def left_out(self, position: Position) -> list[int]:
        """For `Position.left_out` of the same position: what the windows lack that this rank has begun."""
        if position.epoch != self._epoch:  # nothing has been read since that position was saved
            return list(position.left_out)
        if not self._broken.left_out:
            return []
        return self._broken.lacked_by(self.plan(position).windows[self.rank])

    @property
    def num_impressions(self) -> int:
        """In the samples."""
        return self._broken.num_impressions

    @property
    def skipped(self) -> set[RowGroup]:
        """The row groups of this rank that were left out so far."""
        return self._broken.skipped

    def require_enough(self, skipped: int) -> None:
        """`InputError` where more impressions than `max_broken_share` of the samples are left out."""
        self._broken.require_enough(skipped)

    def epoch(self, position: Position) -> Generator[Batch, None, None]:
        """Exactly `plan(position).steps` batches: full ones, one with the rest, then empty ones.

        Close the generator (or drop it) to stop early: reader and threads end with it.
        """
        batches = prefetch(self._batches(position), PREFETCHED_BATCHES)
        try:
            while True:
                before = time.perf_counter()
                batch = next(batches, None)
                self.wait_seconds += time.perf_counter() - before
                if batch is None:
                    return
                yield batch
        finally:
            batches.close()

    def _batches(self, position: Position) -> Generator[Batch, None, None]:
        schedule = self.plan(position)
        windows = schedule.windows[self.rank]
        contents = self._read([group for window in windows for group in window.groups])
        self._broken.left_out = {self._groups[number] for number in position.left_out}
        self._epoch = position.epoch
        stream = (self._open(window, position.epoch, contents) for window in windows)
        pieces = rebatch(stream, schedule.shares[self.rank])
        try:
            for step in range(schedule.steps):
                piece = next(pieces, None) or no_ranges()
                planned = schedule.batch_size_of(self.rank, step)
                if piece.num_impressions != planned:
                    raise RuntimeError(f"step {step}: {planned} impressions, found {piece.num_impressions}")
                yield self._make_batch(piece)
        finally:
            contents.close()

    def _make_batch(self, ranges: Ranges) -> Batch:
        """The one place where a batch is made, empty ones too; on the loader's thread."""
        return self._gather(ranges).with_request(self.num_rows, self.world_size, self.pin_memory)

    def _read(self, wanted: list[RowGroup]) -> Generator[Rows | Exception, None, None]:
        """The contents of row groups, or what kept them from being read, in the order given."""

        def to_rows(table: pa.Table) -> Rows:
            return from_table(table, self._layout)

        return read_in_order(self._files, wanted, self._layout.column_names, to_rows, self.num_threads)

    def _open(self, window: Window, epoch: int, contents: Iterator[Rows | Exception]) -> Ranges:
        """The contexts of a window in their order; contents: those of its row groups come next."""
        read = zip(window.groups, islice(contents, len(window.groups)), strict=True)
        parts = [self._broken.check(window, group, content) for group, content in read]
        rng = window_rng(self.seed, epoch, window) if self.shuffle_window else None
        return permuted(parts, rng, window.skip)
