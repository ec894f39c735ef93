"""Row groups read in a given order on a pool of threads. Petastorm's only user in this project."""

import logging
import re
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

# Its advice on folders without Petastorm's own metadata does not concern plain Parquet.
logging.getLogger("petastorm").setLevel(logging.WARNING)
# Petastorm needs pyarrow's old dataset classes, which warn at every use that they are old.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")

from petastorm.arrow_reader_worker import ArrowReaderWorker  # noqa: E402
from petastorm.reader import Reader  # noqa: E402
from petastorm.transform import TransformSpec  # noqa: E402
from petastorm.workers_pool import EmptyResultError, thread_pool  # noqa: E402

from esmm.data.arrow_files import ArrowFiles  # noqa: E402
from esmm.data.row_group import Rows  # noqa: E402
from esmm.data.schedule import RowGroup  # noqa: E402

READ_AHEAD_ROWS = 2048  # contexts decoded ahead of the batches; at least Petastorm's few row groups
# Its idle threads wake up at this interval. At its own, 1 ms, they take 5 % of a core from the training.
thread_pool.IO_TIMEOUT_INTERVAL_S = 0.02


def read_in_order(
    files: ArrowFiles,
    wanted: list[RowGroup],
    columns: list[str],
    to_rows: Callable[[pa.Table], Rows],
    num_threads: int,
) -> Generator[Rows | Exception, None, None]:
    """What `to_rows` makes of each of the row groups, or the error that was met, in the order given.

    Close the generator to stop early: the threads end with it.
    """
    if not wanted:
        return
    reader = ScheduledReader(
        files,
        wanted,
        worker_class=RowGroupWorker,
        reader_pool=thread_pool.ThreadPool(num_threads),
        schema_fields=[re.escape(name) for name in columns],
        transform_spec=TransformSpec(to_rows),
        num_epochs=1,
        is_batched_reader=True,
    )
    try:
        for group, result in zip(wanted, reader, strict=True):
            assert result.group == group, "read in order"
            yield result.content
    finally:
        reader.stop()
        reader.join()


class ScheduledReader(Reader):
    """Reads the row groups it is given, in that order: Petastorm would choose and shuffle them itself."""

    def __init__(self, files: ArrowFiles, wanted: list[RowGroup], **options: Any) -> None:
        self._wanted = wanted
        self._ahead = READ_AHEAD_ROWS // max(group.num_rows for group in wanted)
        super().__init__(files, [files.folder], shuffle_row_groups=False, **options)

    def _filter_row_groups(
        self, dataset: Any, row_groups: list[Any], *conditions: Any
    ) -> tuple[list[int], None]:
        """Ours take the place, in the workers' list too, of what Petastorm has found."""
        row_groups[:] = self._wanted
        return list(range(len(row_groups))), None

    def _create_ventilator(self, indexes: list[int], *options: Any) -> Any:
        """Gives out more work at once where row groups are small: Petastorm looks every 10 ms only."""
        *others, at_once, seed = options
        return super()._create_ventilator(indexes, *others, max(at_once, self._ahead), seed)


@dataclass
class ReadResult:
    """What became of one row group. order: how many this worker did before, and which worker it is."""

    order: tuple[int, int]
    group: RowGroup
    content: Rows | Exception


class OrderedResults:
    """Hands out results in the order in which Petastorm gave out the row groups.

    Its pool (0.13.1) gives row group k to worker k mod n, but skips a worker whose queue is still empty
    when it collects, so that with several threads its own order is a matter of luck. It can also report
    the end too early: it asks first whether all workers are done, then whether all work was given out,
    and all of it may have been given out in between.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], ReadResult] = {}
        self._next = 0

    def read_next(self, workers_pool: thread_pool.ThreadPool, schema: Any, ngram: Any) -> ReadResult:
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

    def __init__(
        self, worker_id: int, publish_func: Callable[[ReadResult], None], args: tuple[Any, ...]
    ) -> None:
        super().__init__(worker_id, publish_func, args)
        self._num_done = 0

    @staticmethod
    def new_results_queue_reader() -> OrderedResults:
        return OrderedResults()

    def process(
        self, piece_index: int, worker_predicate: None, shuffle_row_drop_partition: tuple[int, int]
    ) -> None:
        group = self._split_pieces[piece_index]
        order = (self._num_done, self.worker_id)
        self._num_done += 1
        content: Rows | Exception
        try:
            content = self._transform_spec.func(self._filesystem.read(group, list(self._schema.fields)))
        except Exception as error:  # raised again by the reader's thread
            content = error
        self.publish_func(ReadResult(order, group, content))
