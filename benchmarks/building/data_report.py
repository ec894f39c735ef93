"""The runs of benchmarks.building.data as medians per size, and as a table for a person."""

import statistics
from typing import Any

from benchmarks.building import stage_times
from benchmarks.building.route import CORES, HEAP, ROUTES

NAMES = {
    "ours": "ours",
    "tables": "ours, from tables",
    "plain": "plain Spark SQL",
    "polars": "polars, tokens only",
}
WIDTH = 12

Runs = list[dict[str, Any]]


def figures(runs: Runs) -> dict[str, Any]:
    """By size: medians of every route, the ratios, and ours compared with the smallest size."""
    sizes = sorted({run["size"] for run in runs})
    found: dict[str, Any] = {
        str(size): _of_size([run for run in runs if run["size"] == size]) for size in sizes
    }
    least = found[str(sizes[0])]["ours"]["seconds_per_gigabyte"]
    for of_size in found.values():
        for route in ("plain", "polars"):
            of_size[f"ratio_to_{route}"] = of_size[route]["seconds"] / of_size["ours"]["seconds"]
        of_size["tables_to_text"] = of_size["ours"]["seconds"] / of_size["tables"]["seconds"]
        of_size["flatness"] = of_size["ours"]["seconds_per_gigabyte"] / least
    return found


def _of_size(runs: Runs) -> dict[str, Any]:
    raw_bytes = runs[0]["raw_bytes"]
    by_route = {route: [run for run in runs if run["route"] == route] for route in ROUTES}
    polars = by_route["polars"][0]
    if polars["tokens"] != polars["declared_tokens"]:
        raise RuntimeError(
            f"polars found {polars['tokens']} tokens, the lines declare {polars['declared_tokens']}"
        )
    found: dict[str, Any] = {route: _of_route(some, raw_bytes) for route, some in by_route.items()}
    return {"raw_megabytes": raw_bytes / 1e6, "tokens": polars["tokens"], **found}


def _of_route(runs: Runs, raw_bytes: int) -> dict[str, Any]:
    """Medians of the times; of the memory marks the highest."""
    seconds = statistics.median(run["seconds"] for run in runs)
    cpu = statistics.median(sum(run["cpu_seconds"].values()) for run in runs)
    found = {
        "seconds": seconds,
        "megabytes_per_second": raw_bytes / 1e6 / seconds,
        "seconds_per_gigabyte": seconds / (raw_bytes / 1e9),
        "cpu_seconds_per_gigabyte": cpu / (raw_bytes / 1e9),
        "python_cpu_seconds": statistics.median(run["cpu_seconds"]["python"] for run in runs),
        "cores_of_others": statistics.median(run["cores_of_others"] for run in runs),
        "memory_megabytes": _memory(runs),
    }
    if "input_bytes" in runs[0]:
        found["input_megabytes"] = runs[0]["input_bytes"] / 1e6
        found["impressions_per_second"] = runs[0]["impressions"] / seconds
    if "written_bytes" in runs[0]:
        found["size_of_raw"] = runs[0]["written_bytes"] / raw_bytes
    return found


def _memory(runs: Runs) -> dict[str, float]:
    """High-water marks: resident by kind of process (the largest), and everything together."""
    marks = [run["memory"] for run in runs]
    found = {f"{kind}_resident": _highest(marks, "resident", kind) for kind in ("driver", "jvm", "worker")}
    found["worker_proportional"] = _highest(marks, "proportional", "worker")
    found["total_proportional"] = max(mark["total"] for mark in marks) / 1e6
    return found


def _highest(marks: Runs, how: str, kind: str) -> float:
    return max(mark[how].get(kind, 0) for mark in marks) / 1e6


def table(results: dict[str, Any]) -> str:
    """The figures, a column per size, and where the time of ours went at the largest."""
    measured_on = results["machine"]
    found = list(results["figures"].values())
    cores = f"{CORES} of {measured_on['cores']} cores, JVM heap {HEAP}"
    lines = [f"{measured_on['date']}, {measured_on['processor']}, {cores}", ""]
    lines.append(_line("", [f"{size}x" for size in results["figures"]]))
    lines.append(_line("MB of raw log", [f"{f['raw_megabytes']:,.0f}" for f in found]))
    lines += _route_lines("MB read", "input_megabytes", "{:,.0f}", found)
    lines += _route_lines("MB/s of raw log", "megabytes_per_second", "{:.1f}", found)
    lines += _route_lines("impressions/s", "impressions_per_second", "{:,.0f}", found)
    lines.append(_line("ours / plain Spark SQL", [f"{f['ratio_to_plain']:.1f}" for f in found]))
    lines.append(_line("impressions/s, tables / text", [f"{f['tables_to_text']:.2f}" for f in found]))
    lines.append(_line("ours / polars", [f"{f['ratio_to_polars']:.2f}" for f in found]))
    lines.append(_line("s per GB, ours, to smallest size", [f"{f['flatness']:.2f}" for f in found]))
    lines += _route_lines("bytes of raw", "size_of_raw", "{:.1%}", found)
    lines += _route_lines("CPU s per GB", "cpu_seconds_per_gigabyte", "{:.1f}", found)
    lines += _route_lines("cores that others used", "cores_of_others", "{:.2f}", found)
    lines += _memory_lines(found)
    return "\n".join([*lines, "", "ours, largest size:", stage_times.table(_last_profile(results["runs"]))])


def _route_lines(what: str, key: str, form: str, found: Runs) -> list[str]:
    """A line per route that has this figure."""
    return [
        _line(f"{what}, {name}", [form.format(f[route][key]) for f in found])
        for route, name in NAMES.items()
        if key in found[0][route]
    ]


def _memory_lines(found: Runs) -> list[str]:
    rows = (
        ("JVM, ours", "ours", "jvm_resident"),
        ("JVM, plain Spark SQL", "plain", "jvm_resident"),
        ("largest Python worker, ours", "ours", "worker_resident"),
        ("  its share of shared pages", "ours", "worker_proportional"),
        ("driver's Python, ours", "ours", "driver_resident"),
        ("everything together, ours", "ours", "total_proportional"),
        ("everything together, ours, from tables", "tables", "total_proportional"),
        ("polars", "polars", "driver_resident"),
    )
    lines = [_line("memory high-water marks, MB", [])]
    for name, route, mark in rows:
        lines.append(_line(f"  {name}", [f"{f[route]['memory_megabytes'][mark]:,.0f}" for f in found]))
    return lines


def _line(name: str, cells: list[str]) -> str:
    return f"{name:<44}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _last_profile(runs: Runs) -> dict[str, Any]:
    profile: dict[str, Any] = [run["profile"] for run in runs if run["route"] == "ours"][-1]
    return profile
