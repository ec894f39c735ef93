"""How many ids a whole table has, the buckets for them, and both in words."""

import math

from jobs.schema_proposal.statistics import Stats

FEWEST_BUCKETS, MOST_BUCKETS = 64, 1 << 30


def ids_of_all(stats: Stats, total: int) -> int:
    """About how many ids the whole table has: as many more as their number has grown from the half of what
    was read to all of it, so a column whose ids are all known by then stays as it is."""
    if stats.rows >= total or not stats.of_half:
        return stats.distinct
    growth = min(2.0, max(1.0, stats.distinct / stats.of_half))  # by doubling the rows
    return round(stats.distinct * growth ** math.log2(total / stats.rows))


def buckets_for(ids: int) -> int:
    """The power of two that is at least twice as many."""
    size = 1 << max(0, 2 * ids - 1).bit_length()
    return min(MOST_BUCKETS, max(FEWEST_BUCKETS, size))


def counted(stats: Stats, ids: int, total: int) -> str:
    """What was counted of ids, in words. ids, total: about how many ids, and rows, the whole table has."""
    text = f"{stats.distinct:,} ids in {stats.rows:,} rows"
    if stats.longest > 1:
        mean = stats.values / max(1, stats.rows - stats.nulls)
        text += f", up to {stats.longest:,} in a list, {mean:.1f} on average"
    if stats.rows < total:
        text += f", about {ids:,} in all"
    return text + nulls(stats)


def nulls(stats: Stats) -> str:
    """How many of the rows are null, in words; empty where none is."""
    share = stats.nulls / max(1, stats.rows)
    return f", {share:.1%} null".replace("%", " %") if stats.nulls else ""
