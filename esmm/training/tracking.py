"""What a run reports to other tools, if told to: to MLflow, and to TensorBoard as event files.

Both are optional packages, and train.jsonl stays the run's record: where MLflow does not answer in the
middle of a run, a warning says so and the training goes on. Rank 0 alone reports.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import InputError
from cli.packages import require_package
from esmm.config import Config, MlflowConfig
from esmm.mlflow_client import DATABASE_NAME, client_errors, parameters, prepare
from schemas.train_log import LogEntry

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

Record = Callable[[LogEntry], None]  # takes an entry of train.jsonl
RUN_ID_NAME = "mlflow_run_id"
EVENTS_NAME = "tensorboard"
NO_METRICS = ("kind", "epoch", "step")
OTHERWISE = ", or turn the option off"


@contextmanager
def reports(config: Config, path: Path, target: Path, step: int) -> Iterator[Record]:
    """A function that passes entries of train.jsonl to the tools that the configuration names.

    path: the run folder. target: where it will lie when the run is complete. step: that it starts from.
    The end of the block is the end of the run: finished, killed (`SystemExit`) or failed. `InputError`
    where a package is missing or MLflow cannot be reached.
    """
    with ExitStack() as stack:
        records: list[Record] = []
        if config.tracking.mlflow is not None:
            run = _MlflowRun.start(config, config.tracking.mlflow, path, target)
            records.append(stack.enter_context(run.until_its_end()))
        if config.tracking.tensorboard:
            records.append(stack.enter_context(_tensorboard(path / EVENTS_NAME, step)))

        def to_all(entry: LogEntry) -> None:
            for record in records:
                record(entry)

        yield to_all


def metrics(entry: LogEntry) -> dict[str, float]:
    """The numbers of an entry of train.jsonl, by the group that they are shown in."""
    return {
        f"{'validation' if name.startswith('auc_') else 'train'}/{name}": float(value)
        for name, value in entry.items()
        if name not in NO_METRICS and isinstance(value, int | float)
    }


class _MlflowRun:
    """One run in MLflow's store."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    @classmethod
    def start(cls, config: Config, options: MlflowConfig, path: Path, target: Path) -> "_MlflowRun":
        """Go on with the run that the folder knows, or begin one."""
        uri = options.uri or f"sqlite:///{path.absolute() / DATABASE_NAME}"
        prepare("tracking.mlflow", OTHERWISE)
        from mlflow import MlflowClient

        try:
            run = cls(*_open(MlflowClient(tracking_uri=uri), options, path, target))
            run._log_parameters(config)
        except client_errors() as error:
            raise InputError(
                f"tracking.mlflow.uri: cannot use {uri}: {error}. Check that it is right and that its server "
                "is up, or turn tracking.mlflow off."
            ) from error
        return run

    @contextmanager
    def until_its_end(self) -> Iterator[Record]:
        status = "FAILED"
        try:
            yield self.record
            status = "FINISHED"
        except SystemExit:
            status = "KILLED"
            raise
        finally:
            self._try("the end of the run", lambda: self.client.set_terminated(self.run_id, status))

    def record(self, entry: LogEntry) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, entry["step"]) for name, value in metrics(entry).items()]
        self._try(f"step {entry['step']}", lambda: self.client.log_batch(self.run_id, metrics=values))

    def _log_parameters(self, config: Config) -> None:
        """The configuration. MLflow never changes a parameter: what a resumed run changes becomes a tag."""
        from mlflow.entities import Param, RunTag

        known = self.client.get_run(self.run_id).data.params
        found = parameters(config.model_dump())
        changed = {name: value for name, value in found.items() if known.get(name, value) != value}
        self.client.log_batch(
            self.run_id,
            params=[Param(name, value) for name, value in found.items() if name not in known],
            tags=[RunTag(f"resumed_with.{name}", value) for name, value in changed.items()],
        )

    def _try(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except client_errors() as error:
            log.warning("MLflow has not taken %s: %s", what, error)


def _open(
    client: "MlflowClient", options: MlflowConfig, path: Path, target: Path
) -> "tuple[MlflowClient, str]":
    """The run whose id the folder holds, if this store has it; else a new one."""
    known = path / RUN_ID_NAME
    experiment = client.get_experiment_by_name(options.experiment)
    if known.exists() and experiment:
        run_id = known.read_text().strip()
        client.update_run(run_id, status="RUNNING")
        return client, run_id
    artifacts = None if options.uri else (target.absolute() / "mlflow_artifacts").as_uri()
    experiment_id = (
        experiment.experiment_id if experiment else client.create_experiment(options.experiment, artifacts)
    )
    tags = {"run_folder": str(target.absolute())}
    run_id = client.create_run(experiment_id, tags=tags, run_name=target.name).info.run_id
    known.write_text(run_id + "\n")
    return client, run_id


@contextmanager
def _tensorboard(folder: Path, step: int) -> Iterator[Record]:
    require_package("tensorboard", "tracking.tensorboard", OTHERWISE)
    from torch.utils.tensorboard import SummaryWriter

    # What an earlier try has written beyond the step that this one starts from is no longer shown.
    with SummaryWriter(str(folder), purge_step=step + 1) as writer:

        def record(entry: LogEntry) -> None:
            for name, value in metrics(entry).items():
                writer.add_scalar(name, value, entry["step"])
            writer.flush()

        yield record
