"""Whether a 95 % interval holds the truth in 95 % of the cases, where users have many impressions.

The population is the test half of the demo's logs; a test set is as many users as it has, drawn with
replacement. Scores are the true probabilities with noise in the logit.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from jobs.evaluation import comparison, content
from jobs.evaluation.judging import Judged
from schemas.metrics import TASKS, Estimate
from tests.fixtures.evaluated import Columns, judged, paired

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROJECT = Path(__file__).resolve().parents[3]
REPETITIONS = 200
NOISE = 0.7


class Population(NamedTuple):
    """[N], user by user; bounds [users + 1]."""

    user: np.ndarray
    click: np.ndarray
    conversion: np.ndarray
    p_ctr: np.ndarray
    p_cvr: np.ndarray
    bounds: np.ndarray


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    folder = tmp_path_factory.mktemp("population")
    raw = folder / "raw"
    run("jobs.make_demo_logs", "--out", str(raw))
    logs = ["--skeleton", f"{raw}/sample_skeleton_test.csv", "--common", f"{raw}/common_features_test.csv"]
    run("jobs.build_samples", *logs, "--config", "configs/demo.yaml", "--out", str(folder / "samples"))
    rows = pq.read_table(folder / "samples", columns=["user_id", "sample_id", "click", "conversion"])
    sizes = np.diff(rows["sample_id"].combine_chunks().offsets.to_numpy())
    user = np.repeat(rows["user_id"].fill_null(-1).to_numpy(), sizes)
    labels = [
        rows[name].combine_chunks().flatten().to_numpy() for name in ("sample_id", "click", "conversion")
    ]
    truth = csv.read_csv(raw / "truth_test.csv")
    place = np.argsort(truth["sample_id"].to_numpy())
    at = place[np.searchsorted(truth["sample_id"].to_numpy()[place], labels[0])]
    kept = np.flatnonzero(user >= 0)
    order = kept[np.argsort(user[kept], kind="stable")]
    columns = [user, *labels[1:], truth["p_ctr"].to_numpy()[at], truth["p_cvr"].to_numpy()[at]]
    ordered = [values[order] for values in columns]
    starts = np.flatnonzero(np.diff(ordered[0], prepend=-1))
    return Population(*ordered, bounds=np.append(starts, len(order)))


def run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=PROJECT, check=True, capture_output=True)


def noisy(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    logit = np.log(p) - np.log1p(-p) + rng.normal(0, NOISE, len(p))
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def scored(population: Population, rng: np.random.Generator) -> Columns:
    p_ctr, p_cvr = noisy(population.p_ctr, rng), noisy(population.p_cvr, rng)
    label = (population.click + 2 * population.conversion).astype(np.int8)
    return {"label": label, "p_ctr": p_ctr, "p_cvr": p_cvr, "p_ctcvr": p_ctr * p_cvr}


def resampled(population: Population, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a test set, and whose they are: a user drawn twice is two users."""
    num = len(population.bounds) - 1
    users = rng.integers(0, num, num)
    sizes = np.diff(population.bounds)[users]
    ends = np.cumsum(sizes)
    rows = np.arange(ends[-1]) + np.repeat(population.bounds[users] - (ends - sizes), sizes)
    return rows, np.repeat(np.arange(num), sizes)


def test_intervals_hold_the_truth(population: Population, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(11)
    model = scored(population, rng)
    names = ("auc", "gauc", "log_loss", "scaled_normalised_entropy", "pr_auc")
    truth = figures(judged(model | {"user": population.user.astype(np.uint64)}), names)
    held = dict.fromkeys(truth, 0)
    independent = dict.fromkeys(TASKS, 0)
    for _ in range(REPETITIONS):
        rows, user = resampled(population, rng)
        drawn = {name: values[rows] for name, values in model.items()}
        found = judged(drawn | {"user": user.astype(np.uint64)})
        alone = judged(drawn | {"user": np.arange(len(rows), dtype=np.uint64)})
        for task, name in truth:
            estimate = content.estimates_of(found[task])[name]
            held[task, name] += within(estimate, truth[task, name])
        for task in TASKS:
            estimate = content.estimates_of(alone[task])["auc"]
            independent[task] += within(estimate, truth[task, "auc"])
    with capsys.disabled():
        print(f"\n{len(population.user):,} impressions of {len(population.bounds) - 1:,} users")
        print({f"{task} {name}": f"{num / REPETITIONS:.1%}" for (task, name), num in held.items()})
        print("AUC, every impression a user:", {k: f"{v / REPETITIONS:.1%}" for k, v in independent.items()})
    for task in ("ctr", "ctcvr"):
        assert 0.90 <= held[task, "auc"] / REPETITIONS <= 0.99


def within(estimate: Estimate, value: float) -> bool:
    low, high = estimate["low"], estimate["high"]
    return low is not None and high is not None and low <= value <= high


def figures(found: dict[str, Judged], names: tuple[str, ...]) -> dict[tuple[str, str], float]:
    return {(task, name): found[task].figures[name].value or 0.0 for task in TASKS for name in names}


def test_equal_models_are_seldom_called_different(
    population: Population, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models whose noise is drawn anew each time: neither is better."""
    rng = np.random.default_rng(12)
    called = dict.fromkeys(TASKS, 0)
    for _ in range(REPETITIONS):
        rows, user = resampled(population, rng)
        # Noise per row, not per impression: else a difference by chance would be drawn again and again.
        test_set = Population(*(values[rows] for values in population[:-1]), bounds=rows)
        ours, theirs = (scored(test_set, rng) | {"user": user.astype(np.uint64)} for _ in range(2))
        pairs = paired(ours, theirs)
        for task in TASKS:
            verdict = comparison.difference_of("auc", pairs[task])["verdict"]
            called[task] += verdict != "not distinguishable"
    with capsys.disabled():
        print("\ncalled different:", {task: f"{num / REPETITIONS:.1%}" for task, num in called.items()})
    assert called["ctr"] / REPETITIONS <= 0.08 and called["ctcvr"] / REPETITIONS <= 0.08
