"""Compile the kernels once, in this process, before many tasks would each compile them again."""

import logging
import time
from collections.abc import Iterator

import pyarrow as pa

from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import LogFile
from jobs.raw_logs.id_lookup import IdTable
from jobs.raw_logs.packed_rows import CONTEXTS, IMPRESSIONS, slots
from jobs.raw_logs.source import Parser
from jobs.raw_tables.pack import Packer
from jobs.sample_writer.unpack import Unpacker
from schemas.fields import Field
from schemas.samples import ACTION
from schemas.schema import Schema

LOG = logging.getLogger(__name__)

CONTEXT = b"%016x,0,\n"
IMPRESSION = b"1,0,0,%016x,0,\n"


def compile_kernels(schema: Schema, id_table: IdTable | None = None) -> None:
    """Read and unpack one impression; numba leaves the machine code in its cache for the workers."""
    begin = time.monotonic()
    unpacker = Unpacker(schema, max_impressions=1)
    for batch in _of_tables(schema, id_table) if schema.tables else _of_text(schema):
        list(unpacker.add(batch))
    list(unpacker.finish())
    LOG.info("kernels ready in %.1f s", time.monotonic() - begin)


def _of_text(schema: Schema) -> Iterator[pa.RecordBatch]:
    for is_common, line in ((True, CONTEXT % 0), (False, IMPRESSION % 0)):
        yield from Parser(LogFile(0, "", is_common, 0), schema, 0).rows(Chunk(0, line))


def _of_tables(schema: Schema, id_table: IdTable | None) -> Iterator[pa.RecordBatch]:
    """Both tables with one row, its ids once as numbers and once as text."""
    for table, fields in ((CONTEXTS, schema.user_fields), (IMPRESSIONS, schema.impression_fields)):
        for one in (pa.array([1]), pa.array(["one"])):
            columns = {"key": one}
            if table == IMPRESSIONS:
                is_text = schema.sample_id_type == "string"
                columns |= {"sample": pa.array(["one"] if is_text else [1])}
                columns |= dict.fromkeys(("click", "conversion", ACTION), pa.array([0]))
            for field in fields:
                is_kept = field.name == schema.user_id and schema.user_id_type == "int64"
                values = pa.array([1]) if is_kept else one
                columns |= _one_value(schema.index[field.name], field, values)
            numbers = [slot.name for slot in slots(schema)[table] if slot.is_number]
            columns |= dict.fromkeys(numbers, pa.array([1.0], pa.float32()))
            yield from Packer(schema, table, 0, {}, id_table).rows(pa.RecordBatch.from_pydict(columns))


def _one_value(place: int, field: Field, value: pa.Array) -> dict[str, pa.Array]:
    weight = pa.array([1.0], pa.float32())
    arrays = {f"ids_{place}": value} | ({f"weights_{place}": weight} if field.weighted else {})
    if not field.multi:
        return arrays
    return {name: pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), a) for name, a in arrays.items()}
