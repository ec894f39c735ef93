"""Small random raw logs and an independent, slow reading of them in plain Python."""

import random
from dataclasses import dataclass, field

from schemas.fields import FIELDS, IMPRESSION_FIELDS, USER_FIELDS
from schemas.hashing import bucket


def feature(name: str, feature_id: int | str, value: str) -> str:
    return f"{name}\x02{feature_id}\x03{value}"


def random_features(rng: random.Random, fields) -> str:
    """A feature list over some fields, each present or not, in any order; count and list."""
    found = []
    for f in fields:
        for _ in range(rng.randint(0, 5) if f.multi else rng.randint(0, 1)):
            value = f"{rng.uniform(0.1, 4):.5f}" if f.weighted else "1.0"
            found.append(feature(f.name, rng.randint(1, 10_091_378), value))
    rng.shuffle(found)
    return f"{len(found)},{chr(1).join(found)}"


@dataclass
class RawLogs:
    """Lines of both files and, for every broken one, the reason expected."""

    skeleton: list[str] = field(default_factory=list)
    common: list[str] = field(default_factory=list)


def random_logs(seed: int, num_contexts: int, most_impressions: int = 8) -> RawLogs:
    """Valid logs; the common file in another order than the skeleton, some records without impressions."""
    rng = random.Random(seed)
    logs = RawLogs()
    sample_id = 0
    for _ in range(num_contexts):
        context = f"{rng.getrandbits(64):016x}"
        logs.common.append(f"{context},{random_features(rng, USER_FIELDS)}")
        for _ in range(rng.randint(0, most_impressions)):
            sample_id += 1
            click = int(rng.random() < 0.3)
            conversion = int(click and rng.random() < 0.3)
            logs.skeleton.append(
                f"{sample_id},{click},{conversion},{context},{random_features(rng, IMPRESSION_FIELDS)}"
            )
    rng.shuffle(logs.common)
    return logs


def write_logs(folder, logs: RawLogs) -> tuple[str, str]:
    skeleton, common = folder / "sample_skeleton.csv", folder / "common_features.csv"
    skeleton.write_bytes("".join(line + "\n" for line in logs.skeleton).encode())
    common.write_bytes("".join(line + "\n" for line in logs.common).encode())
    return str(skeleton), str(common)


def read_features(text: str, buckets: dict[str, int], hash_seed: int) -> dict[str, list[tuple[int, float]]]:
    """(bucket, value) of every feature, by field, in the order of the line."""
    found: dict[str, list[tuple[int, float]]] = {f.name: [] for f in FIELDS}
    for item in text.split("\x01") if text else []:
        name, rest = item.split("\x02")
        feature_id, value = rest.split("\x03")
        found[name].append((bucket(name, int(feature_id), buckets[name], hash_seed), float(value)))
    return found


def expected_impressions(logs: RawLogs, buckets: dict[str, int], hash_seed: int) -> dict[int, dict]:
    """By sample_id: labels, context, and (bucket, value) of every field of both sides.

    The lists of users are sorted: samples have them in another order than the logs.
    """
    contexts = {}
    for line in logs.common:
        context, _, features = line.split(",")
        contexts[context] = {
            name: sorted(values) for name, values in read_features(features, buckets, hash_seed).items()
        }
    impressions = {}
    for line in logs.skeleton:
        sample_id, click, conversion, context, _, features = line.split(",")
        own = read_features(features, buckets, hash_seed)
        fields = {f.name: (own if f.per_impression else contexts[context])[f.name] for f in FIELDS}
        impressions[int(sample_id)] = {
            "click": int(click),
            "conversion": int(conversion),
            "context_id": context,
            "fields": fields,
        }
    return impressions


def impressions_of_samples(table) -> dict[int, dict]:
    """The same from a table of samples; a single-valued field of bucket 0 is absent."""
    impressions = {}
    for row in table.to_pylist():
        cursor = {f.name: 0 for f in IMPRESSION_FIELDS}
        for k, sample_id in enumerate(row["sample_id"]):
            fields = {}
            for f in FIELDS:
                fields[f.name] = _values(row, f, k, cursor)
            assert sample_id not in impressions, "an impression is repeated"
            impressions[sample_id] = {
                "click": row["click"][k],
                "conversion": row["conversion"][k],
                "context_id": row["context_id"],
                "fields": fields,
            }
        for f in IMPRESSION_FIELDS:
            assert not f.multi or cursor[f.name] == len(row[f.column]), "values that belong to no impression"
    return impressions


def _values(row: dict, f, k: int, cursor: dict[str, int]) -> list[tuple[int, float]]:
    if f.multi and not f.per_impression:
        return sorted(zip(row[f.column], row[f.weight_column], strict=True))
    if not f.per_impression:
        ids, weights = [row[f.column]], [1.0]
    elif f.multi:
        begin = cursor[f.name]
        cursor[f.name] += row[f.length_column][k]
        ids = row[f.column][begin : cursor[f.name]]
        weights = row[f.weight_column][begin : cursor[f.name]] if f.weighted else [1.0] * len(ids)
    else:
        ids = [row[f.column][k]]
        weights = [row[f.weight_column][k]] if f.weighted else [1.0]
    return [(i, w) for i, w in zip(ids, weights, strict=True) if f.multi or i != 0]
