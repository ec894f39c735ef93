"""The benchmarks of training: their parts on small things with known answers."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.training import choices, long_run, peer_data, train_report
from benchmarks.training.measuring import Case, Feed
from benchmarks.training.profile_report import STEP, stage_seconds
from benchmarks.training.train_report import CASES, TABLE_BITS, WORKERS_CASES, figures
from benchmarks.training.train_step import enlarged
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, write_samples


def test_a_feed_times_what_its_consumer_does():
    feed = Feed(itertools.count(), max_steps=5, warm_up=2)
    taken = []
    for number in feed:
        taken.append(number)
        time.sleep(0.2 if number < 2 else 0.02)
    assert taken == list(range(7))
    assert feed.steps == 5
    assert 0.1 <= feed.elapsed < 0.3


def test_a_feed_ends_when_its_time_is_over():
    feed = Feed(itertools.count(), seconds=0.1, warm_up=0)
    for _ in feed:
        time.sleep(0.03)
    assert feed.steps in (2, 3, 4)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "samples"
    write_samples(folder, num_rows=60)
    return folder


def first_value(row: dict[str, Any], number: int) -> list[int]:
    """The first id of every field of an impression, read from a row of Parquet the slow way."""
    values = []
    for field in FIELDS:
        column = row[field.column]
        if field.per_impression and field.multi:
            lengths = row[field.length_column]
            begin = sum(lengths[:number])
            column = column[begin : begin + lengths[number]]
        elif field.per_impression:
            column = column[number]
        values.append((column[0] if column else 0) if isinstance(column, list) else column)
    return values


def test_peers_get_the_first_value_of_every_field(samples: Path):
    [batch, *_] = Loader(str(samples), batch_size=100).epoch(Position.start(1))
    found = peer_data.single_valued(batch, TEST_SCHEMA)
    expected = [
        (first_value(row, number), row["click"][number], row["conversion"][number])
        for row in read_rows(samples)
        for number in range(len(row["click"]))
    ][:100]
    ids, click, conversion = zip(*expected, strict=True)
    np.testing.assert_array_equal(found["ids"], ids)
    np.testing.assert_array_equal(found["click"], click)
    np.testing.assert_array_equal(found["conversion"], conversion)


def test_fbgemm_gets_all_tokens(samples: Path):
    [batch, *_] = Loader(str(samples), batch_size=100).epoch(Position.start(1))
    found = peer_data.deduplicated(batch)
    ids, offsets = found["ids"].numpy(), found["offsets"].numpy()
    bags = [ids[begin:end].tolist() for begin, end in itertools.pairwise(offsets)]
    user = _bags(batch.user.ids, batch.user.offsets)
    assert bags == user + _bags(batch.impression.ids, batch.impression.offsets)
    assert len(bags) == 13 * batch.num_contexts + 10 * 100
    assert len(found["weights"]) == len(ids) == offsets[-1]


def _bags(ids: torch.Tensor, offsets: torch.Tensor) -> list[list[int]]:
    return [ids[begin:end].tolist() for begin, end in itertools.pairwise(offsets.tolist())]


# ---- Reports ------------------------------------------------------------------------------------------


def made_up(rates: dict[str, float], **more: float) -> dict[str, Any]:
    result = {case: {"impressions_per_second": rate, **more} for case, rate in rates.items()}
    return {"result": result, "cores_of_others": 0.1}


def made_up_runs() -> dict[str, list[dict[str, Any]]]:
    base = {"whole": 60, "memory": 70, "bags": 66, "fbgemm": 50}
    base |= {f"rechub:{bits}": 8 for bits in TABLE_BITS} | {f"deepctr:{bits}": 10 for bits in TABLE_BITS}
    base["rechub:23"] = 20
    speed: list[dict[str, Any]] = [
        {"route": route, **made_up(dict.fromkeys(CASES, rate * noise), loader_share=0.01)}
        for noise in (0.5, 1.0, 1.1)
        for route, rate in base.items()
    ]
    for run in speed:
        if run["route"] == "deepctr:20":
            run["result"]["1024:bf16"] = {"error": "not possible"}
            run["result"]["8192:bf16"]["impressions_per_second"] *= 2
    workers = [
        {"workers": n, **made_up(dict.fromkeys(WORKERS_CASES[n], rate), bytes_per_step=1000.0 * n)}
        for n, rate in ((1, 30.0), (2, 51.0))
    ]
    for size, precision in ((2048, "fp32"), (2048, "bf16"), (16384, "fp32"), (16384, "bf16")):
        workers[1]["result"][f"{size}:{precision}"]["impressions_per_second"] = 90.0
    loader = [
        {"batch_size": size, "result": {"impressions_per_second": 1e6}, "cores_of_others": 0.7}
        for size in (1024, 8192)
    ]
    sent = {f"{size}:fp32": {"ids": 10.0, "vectors": 30.0} for size in (1024, 8192)}
    result = {"rows": 1 << 20, "workers": 2, "resident": [10**9, 2 * 10**9], "bytes_per_step": sent}
    tables = [{"result": result, "cores_of_others": 0.0}]
    return {"speed": speed, "loader": loader, "workers": workers, "tables": tables}


def test_ratios_are_those_of_medians():
    found = figures(made_up_runs())
    assert found["impressions_per_second"]["whole"] == dict.fromkeys(CASES, 60)
    assert found["impressions_per_second"]["deepctr:20"]["1024:bf16"] is None
    # Ours is compared with the fastest that a peer has at this batch size, in whatever precision.
    assert found["to_faster_single_valued"] == {
        "2^19": dict.fromkeys(CASES, 6),
        "2^20": {"1024:fp32": 6, "1024:bf16": 6, "8192:fp32": 3, "8192:bf16": 3},
        "2^23": dict.fromkeys(CASES, 3),
    }
    assert found["to_fbgemm"]["memory"]["8192:fp32"] == pytest.approx(1.4)
    workers = {"one": 30, "two": 51, "two_each": 90, "ratio": 1.7, "ratio_each": 3, "bytes_per_step": 2000}
    assert found["workers"]["1024:fp32"] == workers
    assert found["most_cores_of_others"] == 0.7


def test_the_table_shows_what_was_not_possible():
    machine = {"date": "2026-01-01", "processor": "a processor", "cores": "2"}
    text = train_report.table({"machine": machine, "seconds": 60, "figures": figures(made_up_runs())})
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["deepctr-torch 0.3.0, single ids, 2^20 rows"][-4:] == ["10", "-", "10", "20"]
    assert lines["2^20, 2"][-4:] == ["2,000", "40", "40", "40"]


def test_stages_do_not_count_what_lies_in_them():
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        with record_function("outside"):
            time.sleep(0.05)
        with record_function(STEP), record_function("forward"):
            time.sleep(0.1)
            with record_function("pool"):
                torch.ones(10).sum()
                time.sleep(0.2)
    seconds = stage_seconds(profiler.events())
    assert set(seconds) == {STEP, "forward", "pool"}
    assert seconds["forward"] == pytest.approx(0.1, abs=0.05)
    assert seconds["pool"] == pytest.approx(0.2, abs=0.05)
    assert seconds[STEP] == pytest.approx(0, abs=0.02)


def test_choices_as_markdown():
    aucs = {"auc_ctr": 0.75, "auc_cvr": 0.7}
    runs = [
        {
            "table": "precision",
            "value": value,
            "auc_ctcvr": auc,
            "impressions_per_second": 1000.0 * rate,
            **aucs,
        }
        for value, auc, rate in (("fp32", 0.81, 1), ("fp32", 0.83, 3), ("bf16", 0.82, 5), ("bf16", 0.82, 5))
    ]
    assert choices.markdown("precision", runs).splitlines()[2:] == [
        "| fp32 | 0.7500 ± 0.0000 | 0.7000 ± 0.0000 | 0.8200 ± 0.0141 | 2,000 |",
        "| bf16 | 0.7500 ± 0.0000 | 0.7000 ± 0.0000 | 0.8200 ± 0.0000 | 5,000 |",
    ]


# ---- The long run -------------------------------------------------------------------------------------


def test_enlarged_buckets_have_exactly_the_rows_asked_for():
    found = enlarged(ALI_CCP, 1 << 24)
    assert found.num_rows == 1 << 24
    for name, size in ALI_CCP.buckets.items():
        assert found.buckets[name] / size == pytest.approx((1 << 24) / ALI_CCP.num_rows, rel=1e-3)


def watched(last_megabytes: float) -> dict[str, Any]:
    """A run of 100 steps whose rank 0 grows in the first half and, to this size, in the last quarter."""
    sizes = [*range(100, 150), *[150] * 25, *[last_megabytes] * 25]
    samples = [
        {"step": step, "resident": {"0": int(size * 1e6), "1": 90_000_000}} for step, size in enumerate(sizes)
    ]
    report = {
        "kind": "train",
        "step": 100,
        "loss_ctr": 0.1,
        "loss_ctcvr": 0.01,
        "impressions_per_second": 5.0,
    }
    last = {"kind": "epoch", "step": 100, "train_seconds": 9.0, "auc_ctr": 0.7, "auc_cvr": None}
    return long_run.summary(samples, [report, last])["memory"]


@pytest.mark.parametrize(("megabytes", "flat"), [(151, True), (160, False)])
def test_memory_is_flat_where_the_second_half_does_not_grow(megabytes: float, flat: bool):
    memory = watched(megabytes)
    assert memory["0"]["flat"] is flat
    assert (memory["0"]["min"], memory["0"]["max"]) == (150, megabytes)
    assert memory["1"]["growth"] == 0


# ---- Whole ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_send_what_the_network_has_and_no_more_for_a_larger_table(samples: Path, tmp_path: Path):
    sent = [_table_run(samples, tmp_path / str(rows), rows) for rows in (1 << 15, 1 << 18)]
    first = (23 * 18 + 1) * 2 * 360
    tower = (360 + 1) * 200 + (200 + 1) * 80 + 80 + 1
    parameters = first + 2 * tower
    for by_name in sent:
        assert by_name["dense"] == 4 * parameters  # a ring of two: each sends half of it, twice
    without_ids = [sum(n for name, n in by_name.items() if "ids" not in name) for by_name in sent]
    assert without_ids[0] == pytest.approx(without_ids[1], rel=0.1)


def _table_run(samples: Path, out: Path, rows: int) -> dict[str, float]:
    command = [
        "horovodrun",
        "-np",
        "2",
        "-H",
        "localhost:2",
        sys.executable,
        "-m",
        "benchmarks.training.train_run",
    ]
    command += ["table", "--rows", str(rows), "--samples", str(samples), "--cases", str(Case(64, "fp32"))]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([*command, "--out", str(out)], check=True, env=os.environ | {"PATH": path})
    found = json.loads(out.read_text())
    assert (found["rows"], found["workers"], len(found["resident"])) == (rows, 2, 2)
    return found["bytes_per_step"]["64:fp32"]
