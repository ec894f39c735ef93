"""Compile the kernels once, in this process, before many tasks would each compile them again."""

import logging
import time

from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import LogFile
from jobs.raw_logs.source import Parser
from jobs.sample_writer.unpack import Unpacker
from schemas.schema import Schema

LOG = logging.getLogger(__name__)

CONTEXT = b"%016x,0,\n"
IMPRESSION = b"1,0,0,%016x,0,\n"


def compile_kernels(schema: Schema) -> None:
    """Parse and unpack one impression; numba leaves the machine code in its cache for the workers."""
    begin = time.monotonic()
    unpacker = Unpacker(schema, max_impressions=1)
    for is_common, line in ((True, CONTEXT % 0), (False, IMPRESSION % 0)):
        for batch in Parser(LogFile(0, "", is_common, 0), schema, 0).rows(Chunk(0, line)):
            list(unpacker.add(batch))
    LOG.info("kernels ready in %.1f s", time.monotonic() - begin)
