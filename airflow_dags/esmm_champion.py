"""### A new champion: does it predict where it will be served what it was judged by?

Scheduled on the asset `esmm://champion`, which a promotion emits, that of `esmm_daily` or a forced one. Asks
the registry which version is champion, predicts the day that it was judged on once more, and compares with
the predictions of its run: they are the same, or this run fails. Nothing is changed; `esmm.registry rollback`
goes back.
"""

import json
from typing import Any

from airflow.sdk import DAG
from esmm_settings import hours
from esmm_stages import (
    CHAMPION,
    DATA,
    DEFAULTS,
    REGISTRY,
    SAMPLES_ROOT,
    SETTINGS,
    module,
    quoted,
    shell,
    told,
)

RUN, JUDGED_ON = told("champion", "run"), told("champion", "judged_on")
AGAIN = f"{DATA}/days/champion/predictions"


def champion() -> Any:
    command = quoted(module("esmm.registry", "champion", "--registry", REGISTRY, "--json"))
    return shell("champion", command, output_processor=json.loads)


def predict_again() -> Any:
    words = ["--run", RUN, "--samples", f"{SAMPLES_ROOT}/ds={JUDGED_ON}", "--out", AGAIN, "--overwrite"]
    return shell("predict_again", quoted(module("esmm.predict", *words)))


def compare() -> Any:
    words = ["--predictions", AGAIN, "--expected", f"{RUN}/predictions"]
    return shell("compare", quoted(module("esmm.compare_predictions", *words)), retries=0)


with DAG(
    dag_id="esmm_champion",
    description="Smoke test of a champion: its predictions are those it was judged by",
    schedule=[CHAMPION],
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=hours(SETTINGS.hours.day),
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["esmm"],
):
    champion() >> predict_again() >> compare()
