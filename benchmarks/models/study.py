"""A study beside the comparison: tables that compare.html shows after its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.models.curves import Points, curves_chart
from benchmarks.models.summary import markdown
from jobs.report.blocks import Chart, Section, Table
from storage.json_files import write_json

FOLDER = "studies"  # of the comparison's


@dataclass(frozen=True)
class StudyTable:
    """lines: for a chart above it, of each model its points (share, value)."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Mapping[str, Points] | None = None


@dataclass(frozen=True)
class Study:
    """name: of its file. lead: what was done, where and when."""

    name: str
    title: str
    lead: str
    tables: Sequence[StudyTable]

    @classmethod
    def read(cls, path: Path) -> Self:
        content = json.loads(path.read_text())
        tables = [StudyTable(**table) for table in content.pop("tables")]
        return cls(**content, tables=tables)

    def write(self, out: Path) -> None:
        """Into the comparison's folder `out`, and to the screen."""
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(str(out / FOLDER / f"{self.name}.json"), asdict(self))
        print(self.text)

    @property
    def text(self) -> str:
        """As Markdown."""
        tables = (f"{table.caption}\n\n{markdown(table.head, table.rows)}" for table in self.tables)
        return "\n\n".join([f"## {self.title}", self.lead, *tables]) + "\n"

    @property
    def section(self) -> Section:
        """As a part of a page."""
        blocks = [self._block(place, table) for place, table in enumerate(self.tables)]
        return Section(self.name, self.title, self.lead, blocks)

    def _block(self, place: int, told: StudyTable) -> Table | Chart:
        table = Table(told.caption, told.head, told.rows)
        return curves_chart(f"{self.name}-{place}", told.lines, table) if told.lines else table


def read_studies(out: Path) -> list[Study]:
    """Those of a comparison's folder."""
    return [Study.read(path) for path in sorted((out / FOLDER).glob("*.json"))]


def read_runs(done: Path) -> list[dict[str, Any]]:
    """What runs have come to, a line of JSON for each; none where there is no file yet."""
    return [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []


def add_run(done: Path, run: dict[str, Any]) -> None:
    with done.open("a") as stream:
        stream.write(json.dumps(run) + "\n")
