"""Whole lines of a byte range in chunks of bounded size, whatever the lines are."""

from collections.abc import Iterator
from typing import IO, NamedTuple

from jobs.raw_logs.files import CHUNK_BYTES

HEAD_BYTES = 1024  # what is kept of a line that does not fit into a chunk


class Chunk(NamedTuple):
    """Lines that lie end to end, the first of them at byte `offset` of the uncompressed file.

    unterminated: the last one ends with the file, without a line feed. too_long: not whole lines but
    the head of a single one that is longer than a chunk.
    """

    offset: int
    lines: bytes
    unterminated: bool = False
    too_long: bool = False


def read_chunks(
    stream: IO[bytes], begin: int, end: int | None, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """The lines of a range: from the one after the first line end at or after `begin` - 1 to the one in
    which byte `end` - 1 lies, or to the end of the file where `end` is None; `EOFError` where that comes
    before `end`."""
    offset = begin
    if begin > 0:
        stream.seek(begin - 1)
        offset = begin - 1 + _skip_line(stream, chunk_bytes)
    rest = b""  # the beginning of a line, at `offset`
    while end is None or offset < end:
        room = chunk_bytes - len(rest)
        left = room if end is None else min(room, end - offset - len(rest))
        block = stream.read(left) if left > 0 else stream.readline(room)
        if not block:
            if end is not None and offset + len(rest) < end:
                raise EOFError(f"it ends at byte {offset + len(rest)}, before byte {end}")
            if rest:
                yield Chunk(offset, rest, unterminated=True)
            return
        cut = block.rfind(b"\n") + 1
        if cut:
            lines = rest + block[:cut]
            yield Chunk(offset, lines)
            offset += len(lines)
            rest = block[cut:]
        elif len(block) < room:
            rest += block
        else:
            yield Chunk(offset, (rest + block[:HEAD_BYTES])[:HEAD_BYTES], too_long=True)
            offset += chunk_bytes + _skip_line(stream, chunk_bytes)
            rest = b""


def _skip_line(stream: IO[bytes], piece: int) -> int:
    """Read to the end of the line, a piece at a time; how many bytes that were."""
    skipped = 0
    while part := stream.readline(piece):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped
