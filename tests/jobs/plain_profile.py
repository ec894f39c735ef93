"""The figures of a profile computed from raw lines in plain Python, slowly and independently of jobs."""

import math
from collections import Counter

import numpy as np

from schemas.hashing import xxh64

Impressions = dict[int, dict]  # as tests.jobs.raw_lines.expected_impressions


def owners_of(impressions: Impressions, field) -> list[list[tuple[int, float]]]:
    """The (bucket, weight) pairs of every owner: contexts for user fields, else impressions."""
    if field.per_impression:
        return [impression["fields"][field.name] for impression in impressions.values()]
    contexts = {i["context_id"]: i["fields"][field.name] for i in impressions.values()}
    return list(contexts.values())


def plain_field(impressions: Impressions, field) -> dict:
    """Coverage, lengths, tokens, used buckets and weights of a field."""
    owners = owners_of(impressions, field)
    lengths = [len(owner) for owner in owners]
    weights = [weight for owner in owners for _, weight in owner]
    having = sum(bool(i["fields"][field.name]) for i in impressions.values())
    return {
        "coverage": having / len(impressions),
        "coverage_contexts": np.count_nonzero(lengths) / len(lengths),
        "mean": np.mean(lengths),
        "p50": np.percentile(lengths, 50),
        "p99": np.percentile(lengths, 99),
        "max": max(lengths),
        "tokens": sum(lengths),
        "used": len({bucket for owner in owners for bucket, _ in owner}),
        "weights": (min(weights), math.fsum(weights) / len(weights), max(weights)) if weights else None,
    }


def tokens_of(impressions: Impressions, field) -> tuple[Counter, int]:
    """How often each bucket stands with an owner, and how many owners have none."""
    owners = owners_of(impressions, field)
    counts = Counter(bucket for owner in owners for bucket, _ in owner)
    return counts, sum(not owner for owner in owners)


def halves_of(impressions: Impressions) -> tuple[Impressions, Impressions]:
    """Impressions whose context_id has an odd hash, and the others."""
    seed = xxh64(b"profile", 42)
    odd = {i: v for i, v in impressions.items() if xxh64(v["context_id"].encode(), seed) % 2}
    return odd, {i: v for i, v in impressions.items() if i not in odd}


def plain_psi(ours: Impressions, others: Impressions, field, num_bins: int) -> float:
    """Population stability index of ours and of one half of the others, in bins by the other half."""
    odd, even = halves_of(others)
    ranking = tokens_of(odd, field)[0]
    bins = plain_bins(ranking, num_bins)
    sides = []
    for counts, missing in (tokens_of(ours, field), tokens_of(even, field)):
        side = Counter({"missing": missing})
        for bucket, count in counts.items():
            side[bins.get(bucket, "unused")] += count
        sides.append(side)
    names = [name for name in sides[0] | sides[1] if sides[0][name] or sides[1][name]]
    total = [sum(side.values()) + 0.5 * len(names) for side in sides]
    psi = 0.0
    for name in names:
        p, q = ((side[name] + 0.5) / whole for side, whole in zip(sides, total, strict=True))
        psi += (p - q) * math.log(p / q)
    return psi


def plain_bins(ranking: Counter, num_bins: int) -> dict[int, object]:
    """The bin of every bucket in use: walk down the ranks, a new bin at each `1 / num_bins` of the tokens."""
    if len(ranking) <= num_bins:
        return {bucket: ("own", bucket) for bucket in ranking}
    total, before, bins = sum(ranking.values()), 0, {}
    for count in sorted(set(ranking.values()), reverse=True):
        tied = [bucket for bucket, n in ranking.items() if n == count]
        bins |= dict.fromkeys(tied, ("bin", before * num_bins // total))
        before += count * len(tied)
    return bins
