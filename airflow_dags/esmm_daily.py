"""### Daily retraining: yesterday's logs judge the model that learnt from the days before

A run takes one day **D**, the data interval that has just ended. Its logs lie in `raw/ds=D/`, whole, with an
empty `_SUCCESS` written last.

1. **wait_for_logs, build_samples**: logs to samples. Several days may do this at once.
2. **previous_day**: waits until the run of the day before has ended, however it ended. From here on it is one
   day at a time.
3. **plan**: which days the candidate learns from, those before D that the champion has not learnt from, and
   whether it goes on from the champion or begins anew.
4. **profile**: gates of the samples, also beside the days that the candidate learns from. Where one is broken
   the day ends here, and no later day learns from D.
5. **predict_champion, evaluate_champion**: how the champion does on D, which nothing has been trained on.
6. **train, predict, evaluate**: the candidate, on the same impressions, compared with paired intervals.
7. **register, promote**: the gates. *Skipped* means kept: the log of `promote` says why. A promotion emits
   `esmm://champion`, on which `esmm_champion` is scheduled.
8. **report, clean_up**: the page of the candidate, linked from the task `report`; old days go.

A day on which there is nothing to learn, as the first one, skips what follows. Every task replaces its own
output whole, so any can be cleared; a run that is complete is not trained again. docs/operations.md says what
to do when a stage fails, and how to rerun a day, roll back and force a promotion.
"""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task
from esmm_settings import hours
from esmm_stages import (
    CONFIG,
    DATA,
    DEFAULTS,
    EXIT_SKIP,
    PROFILES,
    RAW_ROOT,
    REGISTRY,
    SAMPLES,
    SAMPLES_ROOT,
    SETTINGS,
    DayDelivered,
    Promotion,
    Report,
    module,
    quoted,
    registry_options,
    shell,
    spark_job,
    told,
    workers,
)


def where_told(key: str, text: str) -> str:
    """A template: this text where the plan has a value, else nothing."""
    return f'{{% if ti.xcom_pull(task_ids="plan")["{key}"] %}}{text}{{% endif %}}'


DAY = "{{ params.day or (data_interval_start | ds) }}"
RAW, DAY_SAMPLES = f"{RAW_ROOT}/ds={DAY}", f"{SAMPLES_ROOT}/ds={DAY}"
PLAN_FILE = f"{DATA}/days/ds={DAY}/plan.json"
OF_CHAMPION = f"{DATA}/days/ds={DAY}/champion"
CHAMPION_RUN, RUN = told("plan", "champion_run"), told("plan", "run")
TRUTH = ["--truth", f"{RAW}/{SETTINGS.truth}"] if SETTINGS.truth else []

# Beside the configuration. The day that judges is only looked at while training: it chooses no checkpoint.
EPOCHS = "{% if params.epochs %} --set train.epochs={{ params.epochs }}{% endif %}"
TRAINED_WITH = f"--set train.early_stopping_patience=0{EPOCHS}"

PARAMS = {
    "day": Param(None, type=["null", "string"], format="date", description="The day; empty: yesterday."),
    "window": Param(
        SETTINGS.training.window, type="integer", minimum=1, description="Days to learn from at most."
    ),
    "full_every": Param(
        SETTINGS.training.full_every,
        type="integer",
        minimum=0,
        description="Days between two trainings from nothing; 0: never.",
    ),
    "epochs": Param(
        None, type=["null", "integer"], minimum=1, description="Passes over the days; empty: as configured."
    ),
    "workers": Param(SETTINGS.training.workers, type="integer", minimum=1, description="Horovod workers."),
    "margin": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        description="AUC of CVR and CTCVR that a candidate may lose; empty: promotion.margin of the "
        "configuration.",
    ),
}


def build_samples() -> Any:
    logs = ["--skeleton", RAW, "--common", RAW]
    if SETTINGS.tables:
        logs = ["--impressions", f"{RAW}/impressions", "--contexts", f"{RAW}/contexts"]
        logs += ["--format", SETTINGS.tables]
    words = [*logs, "--out", DAY_SAMPLES, "--overwrite"]
    return spark_job("build_samples", "build_samples", words, outlets=[SAMPLES])


def plan() -> Any:
    words = ["--day", DAY, "--registry", REGISTRY, "--samples", SAMPLES_ROOT, "--profiles", PROFILES]
    words += ["--runs", f"{DATA}/runs", "--config", CONFIG, "--out", PLAN_FILE]
    words += ["--window", "{{ params.window }}", "--full-every", "{{ params.full_every }}"]
    command = f"{quoted(module('esmm.day_plan', *words))} {TRAINED_WITH}"
    return shell("plan", command, output_processor=json.loads)


def profile() -> Any:
    each = '{% for day in ti.xcom_pull(task_ids="plan")["against"] %}'
    before = f"{each}{{{{ '' if loop.first else ',' }}}}{SAMPLES_ROOT}/ds={{{{ day }}}}{{% endfor %}}"
    words = ["--samples", DAY_SAMPLES, "--against", before, "--out", f"{PROFILES}/ds={DAY}.json"]
    return spark_job("profile", "profile_samples", words, retries=0)  # a broken gate stays broken


@task.short_circuit(ignore_downstream_trigger_rules=False)
def has_champion(run: str) -> bool:
    return run != ""


@task.short_circuit
def has_days_to_learn(days: str) -> bool:
    return days != ""


def predict(task_id: str, run: str, out: str) -> Any:
    words = ["--run", run, "--samples", DAY_SAMPLES, "--out", out, "--overwrite"]
    words += [f"--keep={field}" for field in SETTINGS.keep_fields]
    return shell(task_id, f"{workers('esmm.predict')} {quoted(words)}")


def evaluate(task_id: str, folder: str, against: list[str]) -> Any:
    words = ["--predictions", f"{folder}/predictions", "--out", f"{folder}/metrics.json", *against, *TRUTH]
    return spark_job(task_id, "evaluate", words)


def train() -> Any:
    """A complete run is left as it is: its name stands for all that it is made of."""
    words = ["--config", CONFIG, "--valid", DAY_SAMPLES, "--run", RUN, "--resume"]
    warm = where_told("warm_start", f" --warm-start {quoted([told('plan', 'warm_start')])}")
    each = '{% for day in ti.xcom_pull(task_ids="plan")["train"] %}'
    days = f"{each} {quoted([f'{SAMPLES_ROOT}/ds='])}{{{{ day }}}}{{% endfor %}}"
    start = f"{workers('esmm.train')} {quoted(words)} {TRAINED_WITH}{warm} --train{days}"
    there = f"if [ -e {quoted([f'{RUN}/_SUCCESS'])} ]; then echo {quoted([RUN])} is trained already"
    return shell("train", f"{there}; else {start}; fi", trigger_rule="none_failed_min_one_success")


def register() -> Any:
    last = '{{ ti.xcom_pull(task_ids="plan")["train"][-1] }}'
    words = [*registry_options(), "--run", RUN, "--day", last, "--metrics", f"{RUN}/metrics.json", "--json"]
    parent = where_told("parent", f" --parent {told('plan', 'parent')}")
    command = f"{quoted(module('esmm.registry', 'register', *words))}{parent}"
    return shell("register", command, output_processor=json.loads)


def promote() -> Any:
    words = [*registry_options(), "--version", told("register", "version"), "--day", DAY]
    words += ["--metrics", f"{RUN}/metrics.json", "--config", CONFIG, "--plan", PLAN_FILE]
    words += ["--out", f"{RUN}/decision.json", "--exit-kept", str(EXIT_SKIP)]
    margin = "{% if params.margin %} --margin {{ params.margin }}{% endif %}"
    command = f"{quoted(module('esmm.registry', 'decide', *words))}{margin}"
    return shell("promote", command, Promotion, day=DAY)


def report() -> Any:
    words = ["--run", RUN, "--runs", f"{DATA}/runs", "--profile", f"{PROFILES}/ds={DAY}.json"]
    command = quoted(module("jobs.make_report", *words))
    return shell("report", command, Report, run=RUN, trigger_rule="none_failed")


def clean_up() -> Any:
    kept = {RAW_ROOT: SETTINGS.keep.raw, SAMPLES_ROOT: SETTINGS.keep.samples}
    kept |= {f"{DATA}/days": SETTINGS.keep.days, f"{DATA}/runs": SETTINGS.keep.runs}
    words = [f"--keep={folder}={days}" for folder, days in kept.items() if days is not None]
    if not words:
        return EmptyOperator(task_id="clean_up")
    return shell("clean_up", quoted(module("esmm.clean_up", "--day", DAY, "--registry", REGISTRY, *words)))


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


with DAG(
    dag_id="esmm_daily",
    description="Yesterday's logs judge a new ESMM and the champion; only a better one takes its place",
    schedule=CronDataIntervalTimetable(SETTINGS.schedule, timezone="UTC"),
    start_date=midnight(SETTINGS.start),
    end_date=midnight(SETTINGS.end) + timedelta(days=1) if SETTINGS.end else None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=hours(SETTINGS.hours.day),
    default_args=DEFAULTS,
    params=PARAMS,
    doc_md=__doc__,
    tags=["esmm"],
):
    wait_for_logs = DayDelivered(
        task_id="wait_for_logs", raw=RAW, wait=hours(SETTINGS.hours.wait), poll=hours(SETTINGS.hours.poll)
    )
    # `settled` ends well however the day went, and only then the next one may pass `previous_day`. It hides
    # nothing: a stage that failed also comes before `clean_up`, and that decides the state of the run.
    previous_day = EmptyOperator(task_id="previous_day", depends_on_past=True, wait_for_downstream=True)
    its_turn = EmptyOperator(task_id="its_turn")
    settled = EmptyOperator(task_id="settled", trigger_rule="all_done")

    planned, profiled, trained, promoted = plan(), profile(), train(), promote()
    champion = has_champion(where_told("champion_run", "yes"))
    news = has_days_to_learn(where_told("train", "yes"))
    judged = evaluate("evaluate_champion", OF_CHAMPION, [])
    against = where_told("parent", f"{OF_CHAMPION}/metrics.json")
    compared = evaluate("evaluate", RUN, ["--against", against])

    wait_for_logs >> build_samples() >> planned
    previous_day >> its_turn >> planned >> profiled >> [champion, news]
    champion >> predict("predict_champion", CHAMPION_RUN, f"{OF_CHAMPION}/predictions") >> judged
    [judged, news] >> trained
    trained >> predict("predict", RUN, f"{RUN}/predictions") >> compared
    compared >> register() >> promoted >> report() >> clean_up()
    [previous_day, promoted] >> settled
