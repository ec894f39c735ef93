"""Sections to HTML: one file without scripts that asks the network for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cli.version import WRITTEN_BY
from jobs.report import run_sections, sections
from jobs.report.blocks import Section
from jobs.report.dot_charts import over_time_chart
from jobs.report.inputs import REPORT_NAME, Run
from jobs.report.numbers import estimate
from schemas.metrics import TASKS, Metrics

TEMPLATES = Path(__file__).parent / "templates"


def report(run: Run) -> str:
    """The page of a run."""
    metrics = run.metrics
    found = [
        sections.verdict(metrics),
        run_sections.promotion_section(run.decision),
        sections.metrics_section(metrics),
        sections.curves_section(metrics),
        sections.calibration_section(metrics),
        sections.spaces_section(metrics),
        sections.slices_section(metrics),
        run_sections.training_section(run.log),
        run_sections.data_section(run.profiles),
        run_sections.run_section(metrics, run.texts, run.stages),
    ]
    return page(f"Report of {run.path}", [one for one in found if one])


def page(title: str, found: Sequence[Section]) -> str:
    """A page of sections, one below the other."""
    return _render("report.html", title=title, sections=found)


@dataclass(frozen=True)
class Line:
    """A run in the index. metrics: None where they can't be read, and `problem` says why."""

    run: str
    metrics: Metrics | None
    linked: bool
    problem: str = ""


def index(folder: str, lines: Sequence[Line]) -> str:
    """The page over all runs, in the order of `lines`."""
    known = [(one.run or ".", one.metrics) for one in lines if one.metrics is not None]
    charts = []
    for task in TASKS:
        for key in ("auc", "calibration_ratio"):
            charts.append(over_time_chart(task, key, [(run, dict(found)[task][key]) for run, found in known]))  # type: ignore[index]
    time = Section("time", "Over time", "In the order of the table below, with 95 % intervals.", charts)
    return _render("index.html", title=f"Runs in {folder}", time=time, rows=[_row(one) for one in lines])


def _row(line: Line) -> dict[str, object]:
    link = f"{line.run}/{REPORT_NAME}".lstrip("/") if line.linked else ""
    cells = []
    if line.metrics is not None:
        for task in (line.metrics["ctr"], line.metrics["cvr"], line.metrics["ctcvr"]):
            cells += [estimate(task["auc"]), estimate(task["calibration_ratio"], ".3f")]
    return {"name": line.run or ".", "link": link, "cells": cells, "problem": line.problem}


def _render(template: str, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(written_by=WRITTEN_BY, **values) + "\n"
