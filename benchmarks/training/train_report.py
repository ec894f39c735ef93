"""The runs of benchmarks.training.train as medians and ratios, and as a table for a person."""

import statistics
from typing import Any

BATCH_SIZES = (1024, 8192)
CASES = tuple(f"{size}:{precision}" for size in BATCH_SIZES for precision in ("fp32", "bf16"))
OURS = {
    "whole": "ours, from Parquet",
    "memory": "ours, batches in memory as the loader makes them",
    "bags": "ours, bags in memory",
}
SINGLE_VALUED = {"rechub": "torch-rechub 0.9.0", "deepctr": "deepctr-torch 0.3.0"}
TABLE_BITS = (19, 20, 23)  # theirs: the demo's size, a usual one, that of all of Ali-CCP's ids
PEERS = {"fbgemm": "FBGEMM 1.8.0, bags in memory"} | {
    f"{peer}:{bits}": f"{name}, single ids, 2^{bits} rows"
    for bits in TABLE_BITS
    for peer, name in SINGLE_VALUED.items()
}
WORKERS_CASES = {
    1: CASES,
    2: (*CASES, *(f"{2 * size}:{p}" for size in BATCH_SIZES for p in ("fp32", "bf16"))),
}
BYTES_PER_ROW = (18 + 1) * 4  # a vector and its accumulator of row-wise Adagrad
WIDTH = 18
NAME_WIDTH = 58

Runs = list[dict[str, Any]]
ByCase = dict[str, float | None]


def figures(runs: dict[str, Runs]) -> dict[str, Any]:
    """Medians and ratios of everything that was measured."""
    speed = {route: _by_case(runs["speed"], route) for route in (*OURS, *PEERS)}
    loader_share = {
        case: _median(run["result"][case]["loader_share"] for run in runs["speed"] if run["route"] == "whole")
        for case in CASES
    }
    every = [run for some in runs.values() for run in some]
    return {
        "impressions_per_second": speed,
        "to_faster_single_valued": {
            f"2^{bits}": {case: _ratio(speed["whole"][case], _fastest(speed, bits, case)) for case in CASES}
            for bits in TABLE_BITS
        },
        "to_fbgemm": {
            route: {case: _ratio(speed[route][case], speed["fbgemm"][case]) for case in CASES}
            for route in OURS
        },
        "loader_share": loader_share,
        "loader": {str(size): _loader(runs["loader"], size) for size in BATCH_SIZES},
        "workers": {case: _workers(runs["workers"], case) for case in CASES},
        "tables": [run["result"] for run in runs["tables"]],
        "most_cores_of_others": max(run["cores_of_others"] for run in every),
    }


def _by_case(runs: Runs, route: str) -> ByCase:
    results = [run["result"] for run in runs if run["route"] == route]
    return {case: _median(r[case].get("impressions_per_second") for r in results) for case in CASES}


def _median(values: Any) -> float | None:
    """None where a case was not possible."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _fastest(speed: dict[str, ByCase], bits: int, case: str) -> float | None:
    """The fastest of the peers with one value per field at this batch size, whatever its precision."""
    size = case.partition(":")[0]
    rates = [
        rate
        for peer in SINGLE_VALUED
        for other, rate in speed[f"{peer}:{bits}"].items()
        if other.startswith(f"{size}:") and rate is not None
    ]
    return max(rates, default=None)


def _loader(runs: Runs, size: int) -> float | None:
    return _median(run["result"]["impressions_per_second"] for run in runs if run["batch_size"] == size)


def _workers(runs: Runs, case: str) -> dict[str, float | None]:
    """Two workers share the batch of the one, or have as large a batch each."""
    size, _, precision = case.partition(":")
    one = _of_workers(runs, 1, case, "impressions_per_second")
    shared = _of_workers(runs, 2, case, "impressions_per_second")
    each = _of_workers(runs, 2, f"{2 * int(size)}:{precision}", "impressions_per_second")
    sent = _of_workers(runs, 2, case, "bytes_per_step")
    ratios = {"ratio": _ratio(shared, one), "ratio_each": _ratio(each, one)}
    return {"one": one, "two": shared, "two_each": each, **ratios, "bytes_per_step": sent}


def _of_workers(runs: Runs, workers: int, case: str, figure: str) -> float | None:
    return _median(run["result"][case][figure] for run in runs if run["workers"] == workers)


# ---- For a person ---------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """All figures, a column per case."""
    measured_on = results["machine"]
    found = results["figures"]
    others = found["most_cores_of_others"]
    lines = [f"{measured_on['date']}, {measured_on['processor']}, {measured_on['cores']} cores"]
    lines.append(f"{results['seconds'] / 60:.0f} minutes; others kept up to {others:.1f} cores busy")
    lines += ["", *_speed_lines(found), "", *_worker_lines(found["workers"])]
    lines += ["", *_table_lines(found["tables"])]
    return "\n".join(lines)


def _speed_lines(found: dict[str, Any]) -> list[str]:
    lines = [_line("impressions/s", [f"{case.replace(':', ' ')}" for case in CASES])]
    for route, name in (OURS | PEERS).items():
        lines.append(_case_line(name, found["impressions_per_second"][route], "{:,.0f}"))
    for rows, ratio in found["to_faster_single_valued"].items():
        lines.append(_case_line(f"ours from Parquet / faster of the two with {rows} rows", ratio, "{:.2f}"))
    for route, name in OURS.items():
        lines.append(_case_line(f"{name} / FBGEMM", found["to_fbgemm"][route], "{:.2f}"))
    lines.append(_case_line("share of the time waiting for the loader", found["loader_share"], "{:.1%}"))
    for size, rate in found["loader"].items():
        lines.append(_line(f"loader alone, batch {size}", [f"{rate:,.0f}"]))
    return lines


def _worker_lines(workers: dict[str, dict[str, float]]) -> list[str]:
    rows = (
        ("one worker on one core, impressions/s", "one", "{:,.0f}"),
        ("two workers on two cores, batch shared", "two", "{:,.0f}"),
        ("two workers on two cores, such a batch each", "two_each", "{:,.0f}"),
        ("two / one, batch shared", "ratio", "{:.2f}"),
        ("two / one, such a batch each", "ratio_each", "{:.2f}"),
        ("bytes per step that a worker of two sends", "bytes_per_step", "{:,.0f}"),
    )
    return [_case_line(name, {case: workers[case][key] for case in CASES}, form) for name, key, form in rows]


def _table_lines(tables: Runs) -> list[str]:
    sizes = [f"bytes/step, {size}" for size in BATCH_SIZES]
    lines = [_line("table: rows, workers", ["MB each", "rows x 76 / N", *sizes])]
    for run in tables:
        of_table = run["rows"] * BYTES_PER_ROW / run["workers"]
        cells = [f"{max(run['resident']) / 1e6:,.0f}", f"{of_table / 1e6:,.0f}"]
        cells += [f"{sum(sent.values()):,.0f}" for sent in run["bytes_per_step"].values()]
        lines.append(_line(f"2^{run['rows'].bit_length() - 1}, {run['workers']}", cells))
    return lines


def _case_line(name: str, by_case: ByCase, form: str) -> str:
    return _line(name, ["-" if (value := by_case[case]) is None else form.format(value) for case in CASES])


def _line(name: str, cells: list[str]) -> str:
    return f"{name:<{NAME_WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)
