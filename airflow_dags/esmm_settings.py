"""Where daily retraining finds and puts things, and what it may take: one YAML file.

The file is that in ESMM_SETTINGS, else configs/daily.yaml. ESMM_HOME is the project's folder; without it the
one above this file's. Paths of the file that are relative begin there. Where Spark runs is not in it but in
the Airflow connection `esmm_spark`.
"""

import os
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

HOME = os.environ.get("ESMM_HOME", str(Path(__file__).resolve().parents[1]))
PATH = os.environ.get("ESMM_SETTINGS", f"{HOME}/configs/daily.yaml")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spark(_Section):
    """Of the jobs, as options of spark-submit. conf wins over properties_file."""

    properties_file: str | None = None
    py_files: str | None = None
    archives: str | None = None
    deploy_mode: Literal["client", "cluster"] | None = None
    driver_memory: str = "2g"
    conf: dict[str, str] = {}


class Training(_Section):
    """window, full_every: as of esmm.day_plan. hosts: HOST:WORKERS,..., by default all workers on this
    machine. launcher_options: more of them, for horovodrun or, with launcher spark, for spark-submit."""

    window: PositiveInt = 7
    full_every: NonNegativeInt = 28
    workers: PositiveInt = 2
    hosts: str | None = None
    launcher: Literal["horovodrun", "spark"] = "horovodrun"
    launcher_options: list[str] = []


class Hours(_Section):
    """How long things may take. wait: for a day's logs, which are looked for every `poll`; task: one try of a
    task; day: a run as a whole; approval: for an answer to a forced promotion."""

    wait: NonNegativeFloat = 12
    poll: PositiveFloat = 5 / 60
    task: PositiveFloat = 6
    day: PositiveFloat = 24
    approval: PositiveFloat = 24


class Keep(_Section):
    """Days that stay; null: all of them. samples has to cover the window."""

    raw: PositiveInt | None = None
    samples: PositiveInt | None = 35
    days: PositiveInt | None = 35
    runs: PositiveInt | None = 14


class Settings(_Section):
    """data: a folder that all hosts share, for days/ (plans, profiles, evaluations of a champion), runs/ and
    registry/. raw, samples: folders of ds=D, there too unless said otherwise; HDFS is allowed. registry: a
    folder, or a URI with `lock`. keep_fields: what predictions keep for the evaluation, the fields of
    evaluate.slices in `config`. schema: describes the fields; Ali-CCP's without. tables: format of a day's
    logs where they are tables, impressions/ and contexts/, and not text. truth: name of a file in a day's raw
    logs, of demo logs alone. retries: of a task, after `retry_minutes`, then twice that and so on. approvers:
    names of users who may force a promotion; without them all who may see the DAG. schedule: cron, in UTC; a
    run at its tick takes the day that has ended. start, end: first and last day for the scheduler."""

    data: str = "build/daily"
    raw: str = "{data}/raw"
    samples: str = "{data}/samples"
    registry: str = "{data}/registry"
    lock: str | None = None
    config: str = "configs/demo.yaml"
    schema_file: str | None = Field(None, alias="schema")
    tables: Literal["parquet", "orc", "json", "csv", "delta"] | None = None
    keep_fields: list[str] = []
    truth: str | None = None
    schedule: str = "0 3 * * *"
    start: date = date(2026, 1, 1)
    end: date | None = None
    retries: NonNegativeInt = 2
    retry_minutes: PositiveFloat = 2
    approvers: list[str] = []
    training: Training = Training()
    spark: Spark = Spark()
    hours: Hours = Hours()
    keep: Keep = Keep()

    def absolute(self, text: str) -> str:
        """A path of the file, or a URL as it is."""
        path = text.replace("{data}", self.data)
        return path if "://" in path else str(Path(HOME) / path)


def load(path: str = PATH) -> Settings:
    """The settings, or an error that names the file and all of its mistakes: Airflow's page shows it."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: expected the settings of daily retraining (ESMM_SETTINGS).")
    try:
        found = Settings(**(yaml.safe_load(file.read_text()) or {}))
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if found.keep.samples is not None and found.keep.samples <= found.training.window:
        raise ValueError(
            f"{path}: keep.samples: expected more days than training.window, {found.training.window}, "
            f"found {found.keep.samples}: a day's samples would go before they are learnt from."
        )
    return found


def hours(number: float) -> timedelta:
    return timedelta(hours=number)
