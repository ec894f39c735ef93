"""A candidate becomes a version: tags of ours, and an MLflow run with parameters, metrics and artifacts."""

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.config_files import read_yaml
from cli.errors import InputError
from esmm.mlflow_client import parameters
from esmm.registry.evidence import Checkpoint
from esmm.registry.store import CANDIDATE, Change, State, Store, Version
from schemas.metrics import COMPARED, TASKS, Metrics

if TYPE_CHECKING:
    from mlflow.entities import Run

CONFIG_NAME = "config.yaml"
KEY = "registry_key"


class Candidate(NamedTuple):
    """run: absolute. day: the last one it was trained on. parent: the version it was warm-started from."""

    run: Path
    day: date
    parent: int | None
    metrics: Metrics
    checkpoint: Checkpoint

    @property
    def key(self) -> str:
        """The same for the same run folder, day and checkpoint."""
        return hashlib.sha256(f"{self.run}\n{self.day}\n{self.checkpoint.digest}".encode()).hexdigest()

    @property
    def tags(self) -> dict[str, str]:
        found = {
            "run": str(self.run),
            "day": self.day.isoformat(),
            "checkpoint": self.checkpoint.name,
            "checkpoint_digest": self.checkpoint.digest,
            KEY: self.key,
        }
        return found if self.parent is None else {**found, "parent": str(self.parent)}


def register(store: Store, candidate: Candidate) -> int:
    """The version of a candidate, a new one where it has none yet."""
    state = store.read()
    if candidate.parent is not None:
        state.require(candidate.parent)
    known = _known(state, candidate)
    if known is not None and "decision" in known.tags:
        return known.number
    number = known.number if known else _create(store, candidate)
    if state.aliases.get(CANDIDATE) != number:
        store.commit(Change(aliases={CANDIDATE: number}))
    return number


def figures(metrics: Metrics) -> dict[str, float]:
    """Every figure of every task with its interval, by MLflow's name: ctr_auc, ctr_auc_low, ctr_auc_high."""
    found: dict[str, float | None] = {}
    for task in TASKS:
        judged = metrics[task]  # type: ignore[literal-required]
        found |= {f"{task}_rows": judged["rows"], f"{task}_positives": judged["positives"]}
        for name in COMPARED:
            one = judged[name]
            found[f"{task}_{name}"] = one["value"]
            found |= {f"{task}_{name}_{end}": one[end] for end in ("low", "high")}
    return {name: float(value) for name, value in found.items() if value is not None}


def _known(state: State, candidate: Candidate) -> Version | None:
    known = next((one for one in state.versions.values() if one.tags.get(KEY) == candidate.key), None)
    if known is not None and known.parent != candidate.parent:
        raise InputError(
            f"--parent {candidate.parent}: expected {known.parent}, with which {candidate.run} is version "
            f"{known.number}, found another one. Nothing was changed."
        )
    return known


def _create(store: Store, candidate: Candidate) -> int:
    """All that can be written again comes first; the version, which can not, has all its tags at once."""
    run = _run(store, candidate)
    _log(store, run.info.run_id, candidate)
    if not store.client.search_registered_models(f"name = '{store.name}'"):
        store.client.create_registered_model(store.name)
    tags = {**candidate.tags, "registered_at": datetime.now(UTC).isoformat(timespec="seconds")}
    uri = run.info.artifact_uri or ""
    made = store.client.create_model_version(store.name, uri, run.info.run_id, tags=tags)
    return int(made.version)


def _run(store: Store, candidate: Candidate) -> "Run":
    """The MLflow run of a candidate; one that a registration that was cut off has left is taken up again."""
    name = f"{store.name}-registry"
    experiment = store.client.get_experiment_by_name(name)
    known = experiment.experiment_id if experiment else store.client.create_experiment(name, store.artifacts)
    runs = store.client.search_runs([known], f"tags.{KEY} = '{candidate.key}'")
    if runs:
        return runs[0]
    return store.client.create_run(known, tags=candidate.tags, run_name=candidate.run.name)


def _log(store: Store, run_id: str, candidate: Candidate) -> None:
    from mlflow.entities import Metric, Param

    config = candidate.run / CONFIG_NAME
    told = parameters(read_yaml(str(config)))
    now = int(datetime.now(UTC).timestamp() * 1000)
    store.client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in told.items()],
        metrics=[Metric(name, value, now, 0) for name, value in figures(candidate.metrics).items()],
    )
    store.client.log_dict(run_id, dict(candidate.metrics), "metrics.json")
    for path in (config, candidate.run / "report.html"):
        if path.is_file():
            store.client.log_artifact(run_id, str(path))
    store.client.set_terminated(run_id, "FINISHED")
