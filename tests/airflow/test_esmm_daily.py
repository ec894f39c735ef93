"""The DAGs import cleanly, and their tasks are the commands expected, in the order expected."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.airflow.conftest import PYTHON, Reading
from tests.fixtures.cluster.processes import PROJECT

DAY = "2026-11-22"
DAGS = ["esmm_champion", "esmm_daily", "esmm_promote"]
STAGES = (
    *("wait_for_logs", "build_samples", "plan", "profile", "has_champion", "predict_champion"),
    *("evaluate_champion", "has_days_to_learn", "train", "predict", "evaluate", "register", "promote"),
    *("report", "clean_up"),
)


def test_imports_without_errors_or_deprecations(reading: Reading):
    found = reading.answer("print(json.dumps([bag.import_errors, warned, sorted(bag.dags)]))")
    assert found == [{}, {}, DAGS]


RENDER = """
import shlex
from types import SimpleNamespace
told = json.loads(sys.argv[1])
day = datetime(2026, 11, 22, 3, tzinfo=timezone.utc)
instance = SimpleNamespace(xcom_pull=lambda task_ids: told[task_ids], try_number=1)
params = {name: param.value for name, param in dag.params.items()} | json.loads(sys.argv[2])
spark = SimpleNamespace(host="spark://master", port=7077)
context = {"data_interval_start": day, "ti": instance, "params": params}
context["conn"] = SimpleNamespace(esmm_spark=spark)

def command_of(task):
    if hasattr(task, "bash_command"):
        return shlex.split(task.bash_command)
    if hasattr(task, "raw"):
        return [task.raw]
    if hasattr(task, "application"):
        return task._get_hook()._build_spark_submit_command(task.application)
    return list(getattr(task, "op_args", []))

for task in dag.tasks:
    task.render_template_fields(context | {"task": task})
print(json.dumps({t.task_id: command_of(t) for t in dag.tasks}))
"""


def rendered(reading: Reading, plan: dict[str, Any], params: Any = None, **environment: str) -> Any:
    told = {"plan": plan, "register": {"version": 7}}
    return reading.answer(RENDER, json.dumps(told), json.dumps(params or {}), **environment)


PLAN = {
    "champion_run": "/runs/six",
    "warm_start": "/runs/six",
    "parent": 6,
    "train": ["2026-11-20", "2026-11-21"],
    "against": ["2026-11-20", "2026-11-21"],
    "run": "/a run/seven",
}
FIRST = dict.fromkeys(PLAN) | {"train": ["2026-11-21"], "against": ["2026-11-21"], "run": "/runs/one"}


def test_the_commands_of_a_day(reading: Reading):
    """As lists of arguments, for the shell's as it splits them."""
    found = rendered(reading, PLAN)
    data = str(reading.settings.parent)
    samples = f"{data}/samples/ds={DAY}"
    run = f"{PROJECT}/.venv/bin/horovodrun -np 2 -H localhost:2 {PYTHON} -m".split()
    config = f"{data}/tiny.yaml"
    assert found["wait_for_logs"] == [f"{data}/raw/ds={DAY}"]
    profiles, runs = f"{data}/days/profiles", f"{data}/runs"
    assert found["plan"] == [
        *(PYTHON, "-m", "esmm.day_plan", "--day", DAY, "--registry", f"{data}/registry"),
        *("--samples", f"{data}/samples", "--profiles", profiles, "--runs", runs, "--config", config),
        *("--out", f"{data}/days/ds={DAY}/plan.json", "--window", "7", "--full-every", "28"),
        *("--set", "train.early_stopping_patience=0"),
    ]
    kept = ["--overwrite", "--keep=301"]
    champion = f"{data}/days/ds={DAY}/champion"
    told = ["--run", "/runs/six", "--samples", samples, "--out", f"{champion}/predictions", *kept]
    assert found["predict_champion"] == [*run, "esmm.predict", *told]
    told = ["--run", "/a run/seven", "--samples", samples, "--out", "/a run/seven/predictions", *kept]
    assert found["predict"] == [*run, "esmm.predict", *told]
    train = " ".join(found["train"])
    assert train.startswith(
        "if [ -e /a run/seven/_SUCCESS ]; then echo /a run/seven is trained already; else"
    )
    days = [f"{data}/samples/ds=2026-11-20", f"{data}/samples/ds=2026-11-21;"]
    assert found["train"][-3:] == [*days, "fi"]
    told = ["--config", config, "--valid", samples, "--run", "/a run/seven", "--resume"]
    told += ["--set", "train.early_stopping_patience=0", "--warm-start", "/runs/six", "--train"]
    start = [*run, "esmm.train", *told]
    assert found["train"][-3 - len(start) : -3] == start
    metrics = ["--metrics", "/a run/seven/metrics.json"]
    registry = ["--registry", f"{data}/registry"]
    assert found["register"] == [
        *(PYTHON, "-m", "esmm.registry", "register", *registry, "--run", "/a run/seven"),
        *("--day", "2026-11-21", *metrics, "--json", "--parent", "6"),
    ]
    assert found["promote"] == [
        *(PYTHON, "-m", "esmm.registry", "decide", *registry, "--version", "7", "--day", DAY, *metrics),
        *("--config", config, "--plan", f"{data}/days/ds={DAY}/plan.json"),
        *("--out", "/a run/seven/decision.json", "--exit-kept", "99"),
    ]
    assert found["clean_up"][3:] == [
        *("--day", DAY, *registry, f"--keep={data}/samples=35", f"--keep={data}/days=35"),
        f"--keep={data}/runs=14",
    ]


def arguments(command: list[str]) -> list[str]:
    """What a Spark job is told, behind its file."""
    return command[
        next(n for n, word in enumerate(command) if "/jobs/" in word and word.endswith(".py")) + 1 :
    ]


def test_spark_jobs_on_this_machine(reading: Reading):
    found = rendered(reading, PLAN)
    data = str(reading.settings.parent)
    config = ["--config", f"{data}/tiny.yaml"]
    raw, samples = f"{data}/raw/ds={DAY}", f"{data}/samples/ds={DAY}"
    build = found["build_samples"]
    assert build[:3] == ["spark-submit", "--master", "local[2]"] and "--deploy-mode" not in build
    told = ["--skeleton", raw, "--common", raw, "--out", samples, "--overwrite", *config]
    assert arguments(build) == told
    assert arguments(found["profile"]) == [
        *("--samples", samples),
        *("--against", f"{data}/samples/ds=2026-11-20,{data}/samples/ds=2026-11-21"),
        *("--out", f"{data}/days/profiles/ds={DAY}.json", *config),
    ]
    champion, truth = f"{data}/days/ds={DAY}/champion", ["--truth", f"{raw}/truth.csv"]
    assert arguments(found["evaluate_champion"]) == [
        *("--predictions", f"{champion}/predictions", "--out", f"{champion}/metrics.json", *truth, *config)
    ]
    assert arguments(found["evaluate"]) == [
        *("--predictions", "/a run/seven/predictions", "--out", "/a run/seven/metrics.json"),
        *("--against", f"{champion}/metrics.json", *truth, *config),
    ]


def test_the_first_model_has_nothing_to_go_on_from_or_be_compared_with(reading: Reading):
    found = rendered(reading, FIRST, {"epochs": 3, "workers": 4, "margin": 0.02})
    assert "--warm-start" not in found["train"] and "--parent" not in found["register"]
    told = arguments(found["evaluate"])
    assert told[told.index("--against") + 1] == ""
    assert found["has_champion"] == [""] and found["has_days_to_learn"] == ["yes"]
    assert "train.epochs=3" in found["train"] and "train.epochs=3" in found["plan"]
    assert "localhost:4" in found["train"] and found["promote"][-2:] == ["--margin", "0.02"]


def test_nothing_to_learn_is_nothing_to_do(reading: Reading):
    found = rendered(reading, FIRST | {"train": ["2026-11-21"]})
    assert found["has_days_to_learn"] == ["yes"]
    ends = "print(json.dumps(dag.get_task('has_days_to_learn').ignore_downstream_trigger_rules))"
    assert reading.answer(ends) is True


def test_logs_that_are_tables_with_fields_of_their_own(reading: Reading):
    changed = {"schema": "configs/schemas/shop.yaml", "tables": "parquet"}
    found = rendered(reading, PLAN, **reading.with_settings(**changed))
    data = str(reading.settings.parent)
    raw = f"{data}/raw/ds={DAY}"
    assert arguments(found["build_samples"]) == [
        *("--impressions", f"{raw}/impressions", "--contexts", f"{raw}/contexts", "--format", "parquet"),
        *("--out", f"{data}/samples/ds={DAY}", "--overwrite", "--config", f"{data}/tiny.yaml"),
        *("--schema", f"{PROJECT}/configs/schemas/shop.yaml"),
    ]
    assert "--schema" not in found["evaluate"]


STANDALONE = {"properties_file": "configs/spark/standalone.conf", "py_files": "dist/jobs.zip"}


def test_on_sparks_own_cluster(reading: Reading):
    connection = {"conn_type": "spark", "host": "spark://master", "port": 7077}
    environment = reading.with_settings(spark=STANDALONE, training={"hosts": "a:1,b:1"})
    found = rendered(reading, PLAN, AIRFLOW_CONN_ESMM_SPARK=json.dumps(connection), **environment)
    build = found["build_samples"]
    assert build[:3] == ["spark-submit", "--master", "spark://master:7077"]
    for option, value in (
        ("--properties-file", f"{PROJECT}/configs/spark/standalone.conf"),
        ("--py-files", f"{PROJECT}/dist/jobs.zip"),
    ):
        assert build[build.index(option) + 1] == value
    assert found["predict"][:5] == [f"{PROJECT}/.venv/bin/horovodrun", "-np", "2", "-H", "a:1,b:1"]


def test_on_yarn_with_hdfs(reading: Reading):
    extra = {"queue": "daily", "yarn_resourcemanager_webapp_address": "http://rm:8088"}
    connection = {"conn_type": "spark", "host": "yarn", "extra": extra}
    yarn = {
        "properties_file": "configs/spark/yarn.conf",
        "py_files": "dist/jobs.zip",
        "archives": "hdfs:///esmm/env.tar.gz#.venv",
        "deploy_mode": "cluster",
        "conf": {"spark.executor.instances": "8"},
    }
    places = {"raw": "hdfs:///raw", "samples": "hdfs:///samples", "schema": "configs/schemas/ali_ccp.yaml"}
    training = {"launcher": "spark", "workers": 8}
    environment = reading.with_settings(spark=yarn, training=training, **places)
    found = rendered(reading, PLAN, AIRFLOW_CONN_ESMM_SPARK=json.dumps(connection), **environment)
    build = found["build_samples"]
    config = str(reading.settings.parent / "tiny.yaml")
    for option, value in (
        ("--master", "yarn"),
        ("--queue", "daily"),
        ("--deploy-mode", "cluster"),
        ("--archives", "hdfs:///esmm/env.tar.gz#.venv"),
        ("--files", f"{config},{PROJECT}/configs/schemas/ali_ccp.yaml"),
    ):
        assert build[build.index(option) + 1] == value
    assert "spark.executor.instances=8" in build
    raw, samples = f"hdfs:///raw/ds={DAY}", f"hdfs:///samples/ds={DAY}"
    told = ["--skeleton", raw, "--common", raw, "--out", samples, "--overwrite", "--config", "tiny.yaml"]
    assert arguments(build) == [*told, "--schema", "ali_ccp.yaml"]
    train = found["train"]
    start = train[train.index("spark-submit") :]
    assert start[:3] == ["spark-submit", "--master", "spark://master:7077"]  # of the connection, as rendered
    assert start[start.index("--launcher") :][:4] == ["--launcher", "spark", "--num-workers", "8"]
    assert train[-3:-1] == ["hdfs:///samples/ds=2026-11-20", "hdfs:///samples/ds=2026-11-21;"]


ORDER = """
def above(task_id):
    return sorted(dag.get_task(task_id).get_flat_relative_ids(upstream=True))
chain = {t.task_id: [t.trigger_rule.value, t.depends_on_past, t.wait_for_downstream] for t in dag.tasks}
direct = {t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks}
print(json.dumps([above("clean_up"), chain, direct]))
"""


def test_every_stage_decides_the_state_of_the_run_and_days_take_turns(reading: Reading):
    above, chain, direct = reading.answer(ORDER)
    assert set(STAGES) - {"clean_up"} <= set(above)
    assert chain["previous_day"] == ["all_success", True, True]
    assert direct["previous_day"] == ["its_turn", "settled"] and direct["settled"] == []
    assert {name for name, (rule, *_) in chain.items() if rule == "all_done"} == {"settled"}
    assert {name for name, (_, past, _) in chain.items() if past} == {"previous_day"}


HOURS = """
hours = {t.task_id: t.execution_timeout.total_seconds() / 3600 for t in dag.tasks}
wait = dag.get_task("wait_for_logs").wait.total_seconds() / 3600
retries = {t.task_id: [t.retries, t.retry_exponential_backoff] for t in dag.tasks}
print(json.dumps([hours, wait, dag.dagrun_timeout.total_seconds() / 3600, retries]))
"""


def test_no_task_and_no_day_may_take_for_ever(reading: Reading):
    changed = reading.with_settings(hours={"task": 0.5, "wait": 30, "day": 48}, retries=2)
    hours, wait, whole_day, retries = reading.answer(HOURS, **changed)
    assert set(hours.values()) == {0.5} and (wait, whole_day) == (30, 48)
    assert retries["train"][0] == 2 and retries["train"][1] and retries["profile"][0] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"windows": 7}, "windows"),
        ({"training": {"window": 0}}, "training.window"),
        ({"keep": {"samples": 7}}, "keep.samples: expected more days than training.window, 7, found 7"),
    ],
)
def test_mistaken_settings_are_an_error_of_the_dag_that_names_the_file(
    reading: Reading, changed: dict[str, Any], message: str
):
    environment = reading.with_settings(**changed)
    errors = reading.answer("print(json.dumps(list(bag.import_errors.values())))", **environment)
    assert len(errors) >= len(DAGS)
    assert all(message in error and environment["ESMM_SETTINGS"] in error for error in errors)


FAIL_IN_TURN = """
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
import esmm_stages
told, stages = json.loads(sys.argv[1]), sys.argv[2:]
failing = None

def answer(self, context, **options):
    if self.task_id == failing:
        raise RuntimeError(f"{failing} was made to fail")
    return told.get(self.task_id)

for operator in (BashOperator, SparkSubmitOperator, esmm_stages.DayDelivered, esmm_stages.Promotion):
    operator.execute = answer
for task in dag.tasks:
    task.retries = 0
found = {}
for number, failing in enumerate([*stages, None]):
    run = dag.test(logical_date=datetime(2026, 10, 1, 3, tzinfo=timezone.utc) + timedelta(days=number))
    found[str(failing)] = [run.state.value, {t.task_id: str(t.state) for t in run.get_task_instances()}]
print(json.dumps(found))
"""


@pytest.mark.timeout(600)
def test_the_failure_of_any_stage_fails_the_run_and_lets_the_next_day_begin(reading: Reading):
    """Airflow's own decision, with stages whose commands are answered for them."""
    subprocess.run(
        ["airflow", "db", "migrate"], env=reading.environment, check=True, capture_output=True, timeout=240
    )
    stages = [name for name in STAGES if not name.startswith("has_")]
    told = json.dumps({"plan": PLAN, "register": {"version": 7}})
    found = reading.answer(FAIL_IN_TURN, told, *stages, seconds=580)
    assert found.pop("None")[0] == "success"
    assert {name: state for name, (state, _) in found.items()} == dict.fromkeys(stages, "failed")
    for name, (_, tasks) in found.items():
        assert (tasks[name], tasks["settled"]) == ("failed", "success"), name
        assert tasks["clean_up"] == ("failed" if name == "clean_up" else "upstream_failed"), name


def test_the_settings_of_make_airflow_lead_somewhere(reading: Reading):
    script = "import esmm_stages as s; print(json.dumps([s.CONFIG, s.SETTINGS.keep_fields]))"
    config, kept = reading.answer(script, ESMM_SETTINGS=str(PROJECT / "configs/daily.yaml"))
    slices = yaml.safe_load(Path(config).read_text())["evaluate"]["slices"]
    assert sorted(slices) == sorted(kept)
