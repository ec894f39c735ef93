"""How fast polars merely splits the raw logs into tokens: no hash, no join, nothing written.

Every feature of every line becomes three strings, field, id and value; of the ways tried (`split_exact`,
`splitn`, `extract_groups`, the CSV reader, streaming) this is the fastest.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

import polars as pl

from schemas import raw_log

# Small pieces stay in the processor's cache: 4 MB is twice as fast as 256 MB.
PIECE_BYTES = 4 << 20
PIECES_AHEAD = 16  # per thread
COMMON_COLUMNS = ("context_id", "feature_num", "feature_list")
SKELETON_COLUMNS = ("sample_id", "click", "conversion", *COMMON_COLUMNS)
ONE_SEPARATOR = bytes.maketrans(raw_log.ID_SEPARATOR + raw_log.VALUE_SEPARATOR, 2 * raw_log.FEATURE_SEPARATOR)

Piece = tuple[bytes, tuple[str, ...]]


def tokenise(skeleton: str, common: str, threads: int) -> dict[str, int]:
    """Tokens of both files, the bytes of their parts, and the tokens that the lines themselves declare.

    Each thread splits pieces of its own; polars itself should then run one thread (POLARS_MAX_THREADS=1).
    """
    pieces = chain(_pieces(common, COMMON_COLUMNS), _pieces(skeleton, SKELETON_COLUMNS))
    total: Counter[str] = Counter()
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(pieces, PIECES_AHEAD * threads)):
            for counts in pool.map(_split, some):
                total.update(counts)
    return dict(total)


def _pieces(path: str, columns: tuple[str, ...]) -> Iterator[Piece]:
    """Whole lines, about `PIECE_BYTES` at a time."""
    with open(path, "rb") as stream:
        while block := stream.read(PIECE_BYTES):
            yield block + stream.readline(), columns


def _split(piece: Piece) -> dict[str, int]:
    lines, columns = piece
    table = pl.read_csv(
        lines.translate(ONE_SEPARATOR),
        has_header=False,
        quote_char=None,
        schema=dict.fromkeys(columns, pl.String),
        columns=[len(columns) - 2, len(columns) - 1],
    )
    parts = table["feature_list"].drop_nulls().str.split(raw_log.FEATURE_SEPARATOR.decode()).explode()
    field, feature_id, value = (parts.gather_every(3, place) for place in range(3))
    return {
        "tokens": len(value),
        # Reading a length or two of every part is what a user of the parts would do at the very least.
        "bytes": sum(int(part.str.len_bytes().sum()) for part in (field, feature_id, value)),
        "declared_tokens": int(table["feature_num"].cast(pl.Int64).sum()),
    }
