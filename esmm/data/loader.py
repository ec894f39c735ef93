"""The loader: samples in, batches of one rank out. Petastorm's only user in this project.

`schedule` says which row groups a rank reads, and in which order. Petastorm's `Reader` finds them and reads
them on a pool of threads; `rows` turns each into flat arrays on those threads, `assemble` cuts them into
batches on one thread of its own, a few batches ahead of the training step.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Its advice on folders without Petastorm's own metadata does not concern plain Parquet.
logging.getLogger("petastorm").setLevel(logging.WARNING)
# Petastorm needs pyarrow's old dataset classes, which warn at every use that they are old.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")

from petastorm.arrow_reader_worker import ArrowReaderWorker  # noqa: E402
from petastorm.reader import Reader  # noqa: E402
from petastorm.transform import TransformSpec  # noqa: E402
from petastorm.workers_pool import EmptyResultError, thread_pool  # noqa: E402

from esmm.data.arrow_files import ArrowFiles  # noqa: E402
from esmm.data.assemble import Gatherer, Ranges, no_ranges, permuted, rebatch  # noqa: E402
from esmm.data.prefetch import prefetch  # noqa: E402
from esmm.data.rows import Rows, column_names, from_table, missing_rows  # noqa: E402
from esmm.data.sample_check import (  # noqa: E402
    check_files,
    check_num_rows,
    check_row_groups,
    is_damage,
    other_rows,
    unreadable,
)
from esmm.data.schedule import (  # noqa: E402
    Position,
    RowGroup,
    Schedule,
    Window,
    make_schedule,
    row_groups,
    window_rng,
)
from esmm.model.batch import Batch  # noqa: E402
from esmm.model.request import with_request  # noqa: E402
from schemas import manifest as manifests  # noqa: E402
from schemas import storage  # noqa: E402
from schemas.errors import InputError  # noqa: E402

log = logging.getLogger(__name__)

PREFETCHED_BATCHES = 4
READ_AHEAD_ROWS = 2048  # contexts decoded ahead of the batches; at least Petastorm's few row groups
# Its idle threads wake up at this interval. At its own, 1 ms, they take 5 % of a core from the training.
thread_pool.IO_TIMEOUT_INTERVAL_S = 0.02


class Loader:
    """Batches of one rank from a published folder of samples.

    batch_size: impressions per step over all ranks. shuffle_window: contexts shuffled together, 0 for
    file order. with_keys: batches carry sample_id, context_id and user_id. num_threads: that read and
    decode. skip_broken: leave out row groups that cannot be read; the steps and what is in them stay what
    they are, but the impressions are missing. The order depends on seed, position, rank and world size
    only, not on the number of threads.

    manifest: of the samples. wait_seconds: spent so far by the consumer waiting for batches. skipped: the
    row groups of this rank that could not be read so far.

    Raises InputError for a folder that is no published sample set or whose files are not those of its
    manifest; `epoch` raises it for a file that cannot be read.
    """

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle_window: int = 0,
        seed: int = 0,
        with_keys: bool = False,
        pin_memory: bool = False,
        num_threads: int = 2,
        skip_broken: bool = False,
    ) -> None:
        self.folder = str(folder).rstrip("/")
        self.manifest = manifests.read(self.folder)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.shuffle_window = shuffle_window
        self.seed = seed
        self.with_keys = with_keys
        self.pin_memory = pin_memory
        self.num_threads = num_threads
        self.skip_broken = skip_broken
        self.wait_seconds = 0.0
        self.skipped: set[RowGroup] = set()
        self._groups = row_groups(self.manifest)
        self._num_rows = check_num_rows(self.folder, self.manifest)
        self._gather = Gatherer(self.manifest["buckets"], with_keys, pin_memory)
        check_files(self.folder, self.manifest)
        if batch_size < world_size:
            raise InputError(
                f"train.batch_size: expected at least one impression per worker ({world_size}), "
                f"found {batch_size}."
            )
        self._tell_of_few_data(self.plan(Position.start(0)))

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
        groups = self._read_groups([group for window in windows for group in window.groups])
        stream = (self._open(window, position.epoch, groups) for window in windows)
        pieces = rebatch(stream, schedule.shares[self.rank])
        try:
            for _ in range(schedule.steps):
                yield self._make_batch(next(pieces, None) or no_ranges())
        finally:
            groups.close()

    def _make_batch(self, ranges: Ranges) -> Batch:
        """The one place where a batch is made, empty ones too; on the loader's thread."""
        return with_request(self._gather(ranges), self._num_rows, self.world_size, self.pin_memory)

    def _open(self, window: Window, epoch: int, groups: Iterator[Rows]) -> Ranges:
        """The contexts of a window in their order; groups: its row groups come next."""
        parts = list(islice(groups, len(window.groups)))
        rng = window_rng(self.seed, epoch, window) if self.shuffle_window else None
        return permuted(parts, rng, window.skip)

    def _read_groups(self, wanted: list[RowGroup]) -> Generator[Rows, None, None]:
        """Row groups in the order given, checked against the manifest."""
        if not wanted:
            return
        reader = self._open_reader(wanted)
        try:
            for group, result in zip(wanted, reader, strict=False):
                assert (result.file, result.index) == (group.file, group.index), "read in order"
                yield self._check(group, result.content)
        finally:
            reader.stop()
            reader.join()

    def _check(self, group: RowGroup, content: Rows | Exception) -> Rows:
        """The content of a row group, or what stands in for it."""
        if isinstance(content, Exception):
            error = unreadable(self.folder, group, content)
            if not (self.skip_broken and is_damage(content)):
                raise error
            if group not in self.skipped:
                log.warning("skipped with its %d impressions: %s", group.num_impressions, error)
            self.skipped.add(group)
            return missing_rows(group.num_rows, group.num_impressions)
        if (content.num_contexts, content.num_impressions) != (group.num_rows, group.num_impressions):
            check_row_groups(self.folder, self.manifest)
            raise other_rows(self.folder, group.file)
        return content

    def _open_reader(self, wanted: list[RowGroup]) -> Reader:
        fs, path = storage.filesystem(self.folder)

        def to_rows(table: pa.Table) -> Rows:
            return from_table(table, self.manifest["buckets"], self.with_keys)

        options: dict[str, Any] = {
            "worker_class": RowGroupWorker,
            "reader_pool": thread_pool.ThreadPool(self.num_threads),
            "schema_fields": [re.escape(name) for name in column_names(self.with_keys)],
            "transform_spec": TransformSpec(to_rows),
            "num_epochs": 1,
            "is_batched_reader": True,
        }
        try:
            return ScheduledReader(ArrowFiles(fs), path, wanted, **options)
        except (pa.ArrowException, OSError, LookupError) as error:
            check_row_groups(self.folder, self.manifest)
            raise InputError(f"{self.folder}: cannot be read ({error}).") from error


# ---- Petastorm: our order, its worker, and the order of its results --------------------------------


class ScheduledReader(Reader):
    """Reads the row groups it is given, in that order: Petastorm would choose and shuffle them itself."""

    def __init__(self, filesystem: ArrowFiles, path: str, wanted: list[RowGroup], **options: Any) -> None:
        self._wanted = [(f"{path}/{group.file}", group.index) for group in wanted]
        self._ahead = READ_AHEAD_ROWS // max(group.num_rows for group in wanted)
        files = sorted({file for file, _ in self._wanted})
        super().__init__(filesystem, files, shuffle_row_groups=False, **options)

    def _filter_row_groups(
        self, dataset: Any, row_groups: list[Any], *conditions: Any
    ) -> tuple[list[int], None]:
        """Positions of the wanted row groups among those found; a KeyError for one that is not there."""
        found = {(piece.path, piece.row_group): index for index, piece in enumerate(row_groups)}
        return [found[piece] for piece in self._wanted], None

    def _create_ventilator(self, indexes: list[int], *options: Any) -> Any:
        """Gives out more work at once where row groups are small: Petastorm looks every 10 ms only."""
        *others, at_once, seed = options
        return super()._create_ventilator(indexes, *others, max(at_once, self._ahead), seed)


@dataclass
class Result:
    """What became of one row group. order: how many this worker did before, and which worker it is."""

    order: tuple[int, int]
    file: str
    index: int
    content: Rows | Exception


class OrderedResults:
    """Hands out results in the order in which Petastorm gave out the row groups.

    Its pool (0.13.1) gives row group k to worker k mod n, but skips a worker whose queue is still empty
    when it collects, so that with several threads its own order is a matter of luck. It can also report
    the end too early: it asks first whether all workers are done, then whether all work was given out,
    and all of it may have been given out in between.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], Result] = {}
        self._next = 0

    def read_next(self, workers_pool: thread_pool.ThreadPool, schema: Any, ngram: Any) -> Result:
        wanted = divmod(self._next, workers_pool.workers_count)
        while wanted not in self._waiting:
            try:
                result = workers_pool.get_results()
            except EmptyResultError:
                if workers_pool.all_workers_done():  # asked after all work was given out: now it is true
                    raise StopIteration from None
                continue
            self._waiting[result.order] = result
        self._next += 1
        return self._waiting.pop(wanted)


class RowGroupWorker(ArrowReaderWorker):
    """Reads a row group and publishes what the reader's transformation makes of the Arrow table.

    The stock worker goes through pandas and refuses lists of varying length. Errors are published like
    results: raised here, Petastorm would print their traceback.
    """

    def __init__(self, worker_id: int, publish_func: Callable[[Result], None], args: tuple[Any, ...]) -> None:
        super().__init__(worker_id, publish_func, args)
        self._num_done = 0
        self._footers: dict[str, pq.FileMetaData] = {}

    @staticmethod
    def new_results_queue_reader() -> OrderedResults:
        return OrderedResults()

    def process(
        self, piece_index: int, worker_predicate: None, shuffle_row_drop_partition: tuple[int, int]
    ) -> None:
        piece = self._split_pieces[piece_index]
        order = (self._num_done, self.worker_id)
        self._num_done += 1
        content: Rows | Exception
        try:
            content = self._transform_spec.func(self._read(piece.path, piece.row_group))
        except Exception as error:  # raised again by the reader's thread
            content = error
        self.publish_func(Result(order, piece.path.rpartition("/")[2], piece.row_group, content))

    def _read(self, path: str, index: int) -> pa.Table:
        """One row group; the footer, which costs as much as a small one, is parsed once per file."""
        columns = list(self._schema.fields)
        with self._filesystem.open(path) as stream:
            remote = not isinstance(stream, pa.NativeFile)
            # Far away every read is a request: one for neighbouring columns, not one for each.
            parquet = pq.ParquetFile(stream, metadata=self._footers.get(path), pre_buffer=remote)
            self._footers[path] = parquet.metadata
            return parquet.read_row_group(index, columns=columns, use_threads=False)
