"""The DAG imports cleanly, and its tasks are the commands expected, in the order expected."""

import pytest

from tests.airflow.conftest import PYTHON, Airflow
from tests.fixtures.cluster.processes import PROJECT


def test_imports_without_errors_or_deprecations(airflow: Airflow):
    assert airflow.answer("print(json.dumps([bag.import_errors, warned, sorted(bag.dags)]))") == [
        {},
        {},
        ["esmm_daily"],
    ]


RENDER = """
import shlex
from types import SimpleNamespace
instance = SimpleNamespace(try_number=int(sys.argv[1]))
day = datetime(2026, 11, 22, tzinfo=timezone.utc)
context = {"data_interval_start": day, "ti": instance, "task_instance": instance}

def command_of(task):
    if hasattr(task, "bash_command"):
        return shlex.split(task.bash_command)
    return [task.mark] if hasattr(task, "mark") else [task.application, *task.application_args]

for task in dag.tasks:
    task.render_template_fields(context | {"task": task})
print(json.dumps({t.task_id: [command_of(t), sorted(t.upstream_task_ids)] for t in dag.tasks}))
"""


@pytest.mark.parametrize(("attempt", "manner"), [("1", ["--overwrite"]), ("2", ["--overwrite", "--resume"])])
def test_the_commands_of_a_day(airflow: Airflow, attempt: str, manner: list[str]):
    """As lists of arguments, for the shell's as it splits them."""
    raw, samples, run = (str(airflow.folder(part)) for part in ("raw", "samples", "runs"))
    train, test = f"{samples}/split=train", f"{samples}/split=test"
    config = ["--config", str(airflow.config)]
    workers = [f"{PROJECT}/.venv/bin/horovodrun", "-np", "2", "-H", "localhost:2", PYTHON, "-m"]
    expected = {
        f"build_samples_{split}": [
            [f"{PROJECT}/jobs/build_samples.py", "--skeleton", f"{raw}/sample_skeleton_{split}*"]
            + ["--common", f"{raw}/common_features_{split}*", "--out", f"{samples}/split={split}"]
            + [*config, "--overwrite"],
            ["wait_for_logs"],
        ]
        for split in ("train", "test")
    }
    expected["wait_for_logs"] = [[f"{raw}/_SUCCESS"], []]
    expected["profile"] = [
        [f"{PROJECT}/jobs/profile_samples.py", "--samples", test, "--against", train]
        + [*config, "--out", f"{samples}/_profile.json"],
        ["build_samples_test", "build_samples_train"],
    ]
    expected["train"] = [
        [*workers, "esmm.train", *config, "--train", train, "--valid", test, "--run", run, *manner],
        ["profile"],
    ]
    expected["predict"] = [
        [*workers, "esmm.predict", "--run", run, "--samples", test]
        + ["--out", f"{run}/predictions", "--overwrite"],
        ["train"],
    ]
    expected["evaluate"] = [
        [f"{PROJECT}/jobs/evaluate.py", "--predictions", f"{run}/predictions"]
        + ["--out", f"{run}/metrics.json"],
        ["predict"],
    ]
    assert airflow.answer(RENDER, attempt) == expected


HOURS = """
hours = {t.task_id: t.execution_timeout.total_seconds() / 3600 for t in dag.tasks}
wait = dag.get_task("wait_for_logs").timeout / 3600
print(json.dumps([hours, wait, dag.dagrun_timeout.total_seconds() / 3600]))
"""


@pytest.mark.parametrize(
    ("given", "task", "wait"),
    [({}, 6, 12), ({"ESMM_TASK_HOURS": "0.5", "ESMM_WAIT_HOURS": "30"}, 0.5, 30)],
)
def test_no_task_and_no_day_may_take_for_ever(
    airflow: Airflow, given: dict[str, str], task: float, wait: float
):
    hours, found_wait, whole_day = airflow.answer(HOURS, **given)
    assert len(hours) == 7 and set(hours.values()) == {task}
    assert (found_wait, whole_day) == (wait, 24)
