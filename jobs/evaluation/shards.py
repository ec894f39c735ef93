"""A shard of users on its way: what its blobs become, between the shuffles. Plain functions of blobs.

COUNTS, SAMPLE_IDS, ROWS (from `pack`)  ->  TOTALS, USERS and the rows of every ranking
USERS, INFLUENCES                       ->  the users' sums
"""

from collections.abc import Iterator

import numpy as np

from jobs.evaluation import rankings, scores
from jobs.evaluation.blobs import Arrays, Blob, joined
from jobs.evaluation.cuts import Cut
from jobs.evaluation.history import SEEN_USER, seen_before
from jobs.evaluation.pack import deal
from jobs.evaluation.rankings import RANKINGS, WEIGHT_UNIT, WEIGHTED, count_by_range
from jobs.evaluation.users import Judged, Shard, gather, sums_of
from schemas.metrics import TASKS

TOTALS, USERS, INFLUENCES, SUMMARY = range(4, 8)  # kinds, after those of `pack`
FIRST_RANKING = 10  # the kind of the rows of ranking i is this + i

FROM_RANKINGS = ("below", "above", "scaled_loss")  # sums of users that the rankings bring


def repeated(blobs: Iterator[Blob]) -> int:
    """How many sample_ids of a part were there before."""
    samples = joined(blob.arrays for blob in blobs)["sample"]
    return len(samples) - len(np.unique(samples))


def of_rows(
    blobs: Iterator[Blob], part: int, cuts: list[Cut], parts: int, before: Arrays | None = None
) -> Iterator[Blob]:
    """The rows of a shard as totals, users and rankings.

    parts: that score ranges are dealt to. before: the shard's users in training, where they are asked for.
    """
    shard = gather(joined(blob.arrays for blob in blobs))
    if before is not None:
        shard.columns[SEEN_USER] = shard.per_row(seen_before(shard.users, before))
    codes = [cut.codes(shard) for cut in cuts]
    totals: Arrays = {}
    sums: Arrays = {"user": shard.users}
    for place, task in enumerate(TASKS):
        judged = shard.judged(task)
        own = sums_of(judged)
        sums |= {f"{task}_{name}": values for name, values in own.items()}
        totals[f"{task}_predicted"] = own["predicted"].sum().reshape(1)
        own_codes = [judged.take(some) for some in codes]
        ranges = scores.ranges_of(judged.words)
        totals |= _counts(task, judged, ranges, own_codes, cuts)
        yield from _to_parts(place, part, _columns(shard, judged, own_codes), ranges % parts, parts)
    if "true_p_cvr" in shard.columns:
        totals |= _sums_of_truth(shard)
        shard.columns["true_p_ctcvr"] = shard.columns["true_p_ctr"] * shard.columns["true_p_cvr"]
    for place, name in enumerate(RANKINGS):
        if name not in TASKS and column_of(name) in shard.columns:
            yield from _baseline_to_parts(place, name, shard, part, parts, totals)
    yield Blob(USERS, part, part, sums)
    yield Blob(TOTALS, 0, part, totals)


def _counts(
    task: str, judged: Judged, ranges: np.ndarray, codes: list[np.ndarray], cuts: list[Cut]
) -> Arrays:
    uncut = np.zeros(len(judged.words), np.uint8)
    counts = {f"{task}_0": count_by_range(judged.words, ranges, uncut, 1, None).ravel()}
    for number, (own, cut) in enumerate(zip(codes, cuts, strict=True), 1):
        found = count_by_range(judged.words, ranges, own, len(cut.labels), None)
        counts[f"{task}_{number}"] = found.ravel()
    return counts


def _columns(shard: Shard, judged: Judged, codes: list[np.ndarray]) -> Arrays:
    """The rows of a task as its ranking needs them."""
    users = np.arange(len(shard.users), dtype=np.uint32)
    return {
        "word": judged.words,
        "user": judged.take(shard.per_row(users)),
        "group": judged.take(shard.per_row(shard.groups)),
        **{f"slice_{number}": own for number, own in enumerate(codes, 1)},
    }


def _to_parts(ranking: int, origin: int, columns: Arrays, where: np.ndarray, parts: int) -> Iterator[Blob]:
    yield from deal(FIRST_RANKING + ranking, origin, columns, where, parts)


def column_of(name: str) -> str:
    """The column of a baseline's scores, or of what stands for its labels where it has weights."""
    if name in WEIGHTED:
        return "true_p_cvr"
    kind, _, task = name.partition("_")
    return f"{'true' if kind == 'best' else kind}_p_{task}"


def _baseline_to_parts(
    place: int, name: str, shard: Shard, origin: int, parts: int, totals: Arrays
) -> Iterator[Blob]:
    """The rows of a ranking by other scores than the model's, whose sums are added to `totals`."""
    columns = _weighted(name, shard) if name in WEIGHTED else _scored(name, shard, totals)
    weight = columns["weight"].astype(np.int64) if "weight" in columns else None
    uncut = np.zeros(len(columns["word"]), np.uint8)
    ranges = scores.ranges_of(columns["word"])
    totals[f"{name}_0"] = count_by_range(columns["word"], ranges, uncut, 1, weight).ravel()
    yield from _to_parts(place, origin, columns, ranges % parts, parts)


def _weighted(name: str, shard: Shard) -> Arrays:
    true = shard.columns["true_p_cvr"]
    scored = true if name.startswith("best") else shard.columns["p_cvr"]
    if name.endswith("unclicked"):
        unclicked = (shard.columns["label"] & 1) == 0
        true, scored = true[unclicked], scored[unclicked]
    words = scores.to_words(scored.astype(np.float32), np.zeros(len(scored), np.uint8))
    return {"word": words, "weight": np.rint(true * WEIGHT_UNIT).astype(np.uint32)}


def _scored(name: str, shard: Shard, totals: Arrays) -> Arrays:
    judged = shard.judged(name.partition("_")[2])
    labels = scores.labels_of(judged.words)
    p = judged.take(shard.columns[column_of(name)]).astype(np.float32)
    losses, squares = scores.log_losses(p, labels), (p.astype(np.float64) - labels) ** 2
    for what, values in (("predicted", p), ("log_loss", losses), ("squares", squares)):
        totals[f"{name}_{what}"] = scores.units(values).sum().reshape(1)
    return {"word": scores.to_words(p, labels)}


def _sums_of_truth(shard: Shard) -> Arrays:
    """Rows, predicted and true p_cvr by [not clicked, clicked]."""
    click = (shard.columns["label"] & 1).astype(np.int64)
    sums = {"truth_rows": np.bincount(click, minlength=2)}
    for name, column in (("truth_predicted", "p_cvr"), ("truth_true", "true_p_cvr")):
        values = scores.units(shard.columns[column])
        sums[name] = np.array([values[click == 0].sum(), values[click == 1].sum()])
    return sums


def of_ranking(kind: int, part: int, blobs: list[Blob], totals: dict[str, rankings.Totals]) -> Iterator[Blob]:
    """The rows of a ranking's part as its summary and what they add to users' sums."""
    ranking = kind - FIRST_RANKING
    name = RANKINGS[ranking]
    summary, by_shard = rankings.rank(name, blobs, totals[name])
    yield Blob(SUMMARY, ranking, part, summary)
    for shard, sums in by_shard:
        yield Blob(INFLUENCES, shard, ranking, sums)


def users_sums(users: Arrays, influences: Iterator[Blob]) -> Arrays:
    """[users] per name: `users` with what the rankings bring of it."""
    num = len(users["user"])
    names = [f"{task}_{name}" for task in TASKS for name in FROM_RANKINGS]
    sums = users | {name: np.zeros(num, np.int64) for name in names}
    for blob in influences:
        for name in FROM_RANKINGS:
            # A part has each user once, so that nothing is lost.
            sums[f"{TASKS[blob.origin]}_{name}"][blob.arrays["user"]] += blob.arrays[name]
    return sums


def summed(blobs: Iterator[Blob]) -> Arrays:
    """Summaries of a ranking's parts put together: points joined, all else added."""
    parts = [blob.arrays for blob in blobs]
    total: Arrays = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        total[name] = np.concatenate(values) if name in rankings.POINTS else np.sum(values, axis=0)
    return total
