"""Small random logs whose ids repeat, and an independent reading of what their id table must hold."""

import random
import re
from collections import Counter

from schemas.fields import FIELDS
from schemas.hashing import bucket, hash_id
from tests.jobs.raw_lines import RawLogs, random_logs

POSITIVE = (1 << 63) - 1


def repeating_logs(seed: int, num_contexts: int, most_ids: int = 60) -> RawLogs:
    """As random_logs, with `most_ids` ids per field, some of them far more frequent than others."""
    rng = random.Random(seed)
    logs = random_logs(seed, num_contexts)

    def fewer(_: re.Match[str]) -> str:
        return f"\x02{int(most_ids * rng.random() ** 3) * 1_000_003}\x03"

    for lines in (logs.skeleton, logs.common):
        lines[:] = [re.sub("\x02[0-9]+\x03", fewer, line) for line in lines]
    return logs


def count_ids(logs: RawLogs) -> dict[str, Counter[int]]:
    """Occurrences of every id by field."""
    counts: dict[str, Counter[int]] = {f.name: Counter() for f in FIELDS}
    for line in [*logs.common, *logs.skeleton]:
        features = line.rpartition(",")[2]
        for item in features.split("\x01") if features else []:
            name, rest = item.split("\x02")
            counts[name][int(rest.split("\x03")[0])] += 1
    return counts


def known_buckets(
    counts: dict[str, Counter[int]],
    buckets: dict[str, int],
    seed: int,
    min_count: dict[str, int],
    vocabulary: tuple[str, ...],
) -> dict[str, dict[int, int]]:
    """By field with an id table: the bucket of every known id."""
    known = {}
    for name in {*min_count, *vocabulary}:
        kept = [i for i, n in counts[name].items() if n >= min_count.get(name, 1)]
        if name in vocabulary:
            kept.sort(key=lambda i: (-counts[name][i], i))
            known[name] = {i: 2 + rank for rank, i in enumerate(kept)}
        else:
            known[name] = {i: 2 + (hash_id(name, i, seed) & POSITIVE) % (buckets[name] - 2) for i in kept}
    return known


def expected_bucket(
    known: dict[str, dict[int, int]], name: str, feature_id: int, size: int, seed: int
) -> int:
    """The bucket of any id."""
    return known[name].get(feature_id, 1) if name in known else bucket(name, feature_id, size, seed)
