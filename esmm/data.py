"""The loader: samples in, batches of one rank out. Petastorm's only user in this project.

Petastorm's `Reader` lists the row groups, deals them to the ranks, shuffles them and reads them on a
pool of threads; `esmm.rows` turns each into flat arrays on those threads, `esmm.assemble` cuts them into
batches on one thread of its own, a few batches ahead of the training step.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pyarrow.filesystem import FileSystem

# Its advice on folders without Petastorm's own metadata does not concern plain Parquet.
logging.getLogger("petastorm").setLevel(logging.WARNING)
# Petastorm needs pyarrow's old dataset classes, which warn at every use that they are old.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")

from petastorm.arrow_reader_worker import ArrowReaderWorker  # noqa: E402
from petastorm.reader import Reader  # noqa: E402
from petastorm.transform import TransformSpec  # noqa: E402
from petastorm.workers_pool import EmptyResultError  # noqa: E402
from petastorm.workers_pool.thread_pool import ThreadPool  # noqa: E402

from esmm.assemble import rebatch, to_batch  # noqa: E402
from esmm.batch import Batch  # noqa: E402
from esmm.prefetch import prefetch  # noqa: E402
from esmm.rows import Rows, column_names, empty_rows, from_table  # noqa: E402
from esmm.sample_check import check_files, check_row_groups, other_rows  # noqa: E402
from esmm.schedule import RowGroup, Schedule, make_schedule, row_groups, shard  # noqa: E402
from schemas import manifest as manifests  # noqa: E402
from schemas import storage  # noqa: E402
from schemas.errors import InputError  # noqa: E402

PREFETCHED_BATCHES = 4
REPAIR = "Restore the file or build the samples again."


class Loader:
    """Batches of one rank from a published folder of samples.

    batch_size: impressions per step of this rank. shuffle_window: contexts shuffled together, 0 for file
    order. with_keys: batches carry sample_id, context_id and user_id. num_threads: that read and decode.
    The order depends on seed, epoch, rank and world size only, not on the number of threads.

    manifest: of the samples. num_impressions: of this rank. steps: of an epoch, the same on all ranks.
    schedule: how many impressions each rank has at each step. wait_seconds: spent so far by the
    consumer waiting for batches.

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
    ) -> None:
        self.folder = str(folder).rstrip("/")
        self.manifest = manifests.read(self.folder)
        self.rank = rank
        self.world_size = world_size
        self.shuffle_window = shuffle_window
        self.seed = seed
        self.with_keys = with_keys
        self.pin_memory = pin_memory
        self.num_threads = num_threads
        self.wait_seconds = 0.0
        self._groups = row_groups(self.manifest)
        self._shard = shard(self._groups, rank, world_size)
        self.schedule: Schedule = make_schedule(self._groups, world_size, batch_size)
        check_files(self.folder, self.manifest)
        if not self.steps:
            raise InputError(
                f"{self.folder}: expected at least one impression, found none. Build other samples."
            )

    @property
    def num_impressions(self) -> int:
        return self.schedule.num_impressions[self.rank]

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """Exactly `steps` batches: full ones, one with the rest, then empty ones.

        Close the generator (or drop it) to stop early: reader and threads end with it.
        """
        batches = prefetch(self._batches(epoch), PREFETCHED_BATCHES)
        try:
            for _ in range(self.steps):
                before = time.perf_counter()
                batch = next(batches, None)
                self.wait_seconds += time.perf_counter() - before
                yield to_batch(empty_rows(self.with_keys)) if batch is None else batch
        finally:
            batches.close()

    def _batches(self, epoch: int) -> Generator[Batch, None, None]:
        groups = self._read_groups(epoch)

        def make_rng(window: int) -> np.random.Generator:
            return np.random.default_rng([self.seed, epoch, self.rank, window])

        try:
            for rows in rebatch(groups, self.schedule.batch_size, self.shuffle_window, make_rng):
                yield to_batch(rows, self.pin_memory)
        finally:
            groups.close()

    def _read_groups(self, epoch: int) -> Generator[Rows, None, None]:
        """The row groups of this rank, checked against the manifest."""
        if not self._shard:
            return
        expected = {(group.file, group.index): group for group in self._shard}
        reader = self._open_reader(epoch)
        try:
            for result in reader:
                group = expected.pop((result.file, result.index), None)
                if isinstance(result.content, Exception):
                    raise _unreadable(self.folder, result.file, result.index, result.content)
                if group is None or not _fits(result.content, group):
                    check_row_groups(self.folder, self.manifest)
                    raise other_rows(self.folder, result.file)
                yield result.content
        finally:
            reader.stop()
            reader.join()
        if expected:
            raise other_rows(self.folder, next(iter(expected))[0])

    def _open_reader(self, epoch: int) -> Reader:
        fs, path = storage.filesystem(self.folder)
        files = [f"{path}/{name}" for name in dict.fromkeys(group.file for group in self._groups)]
        shuffle = self.shuffle_window > 0
        # Petastorm takes a seed of 0 as none at all, and any other as a wish to shuffle a shard's row groups.
        seed = (int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0]) or 1) if shuffle else 0

        def to_rows(table: pa.Table) -> Rows:
            return from_table(table, self.manifest["buckets"], self.with_keys)

        options: dict[str, Any] = {
            "worker_class": RowGroupWorker,
            "reader_pool": ThreadPool(self.num_threads),
            "schema_fields": [re.escape(name) for name in column_names(self.with_keys)],
            "transform_spec": TransformSpec(to_rows),
            "shuffle_row_groups": shuffle,
            "seed": seed or None,
            "cur_shard": self.rank,
            # Petastorm refuses more shards than row groups; the ranks beyond them open no reader.
            "shard_count": min(self.world_size, len(self._groups)),
            "num_epochs": 1,
            "is_batched_reader": True,
        }
        try:
            return Reader(SampleFiles(fs), files, **options)
        except (pa.ArrowException, OSError) as error:
            check_row_groups(self.folder, self.manifest)
            raise InputError(f"{self.folder}: cannot be read ({error}).") from error


# ---- Petastorm: its worker, and the order of its results -------------------------------------------


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

    def read_next(self, workers_pool: ThreadPool, schema: Any, ngram: Any) -> Result:
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


class SampleFiles(FileSystem):
    """An fsspec file system as one of pyarrow's old ones, the only kind that Petastorm's `Reader` can use."""

    def __init__(self, fs: AbstractFileSystem) -> None:
        self.fs = fs

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(path))

    def open(self, path: str, mode: str = "rb") -> Any:
        # Arrow reads a local file without Python's lock, an fsspec stream only with it.
        if isinstance(self.fs, LocalFileSystem):
            return pa.OSFile(path)
        # Row groups are read in a random order: nothing is gained by reading on.
        return self.fs.open(path, mode, cache_type="none")


def _fits(rows: Rows, group: RowGroup) -> bool:
    return (rows.num_contexts, rows.num_impressions) == (group.num_rows, group.num_impressions)


def _unreadable(folder: str, file: str, index: int, error: Exception) -> Exception:
    """An error met in a row group, as one that names the file; an error of the program stays what it is."""
    if isinstance(error, InputError):
        return InputError(f"{folder}/{file}, row group {index}: {error} {REPAIR}")
    if isinstance(error, (pa.ArrowException, OSError)):
        return InputError(f"{folder}/{file}, row group {index}: cannot be read ({error}). {REPAIR}")
    return error
