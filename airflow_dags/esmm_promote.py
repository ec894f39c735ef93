"""### Make a version champion by hand, whatever its gates say

Trigger it with the number of a version and a reason; `esmm.registry show` lists the versions. Somebody has to
approve under *Required Actions*; nobody answering means no. The version's tags keep the reason.
`esmm.registry rollback` undoes it.
"""

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param
from esmm_settings import hours
from esmm_stages import CHAMPION, DEFAULTS, SETTINGS, module, quoted, registry_options, shell

PARAMS = {
    "version": Param(type="integer", minimum=1, description="The version, as esmm.registry show lists it."),
    "reason": Param(type="string", minLength=3, description="Why; it stays with the version."),
}


def approve() -> Any:
    return ApprovalOperator(
        task_id="approve",
        subject="Make version {{ params.version }} of ESMM champion?",
        body="Its gates are not asked. Reason given: {{ params.reason }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=hours(SETTINGS.hours.approval),
        assigned_users=[{"id": name, "name": name} for name in SETTINGS.approvers] or None,
        execution_timeout=None,
    )


def promote() -> Any:
    words = [*registry_options(), "--version", "{{ params.version }}"]
    # A reason is somebody's text: it comes as a variable and never becomes part of the command.
    command = f'{quoted(module("esmm.registry", "promote", *words))} --reason "$REASON"'
    return shell("promote", command, env={"REASON": "{{ params.reason }}"}, outlets=[CHAMPION])


with DAG(
    dag_id="esmm_promote",
    description="Forced promotion, once somebody has approved it",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=PARAMS,
    doc_md=__doc__,
    tags=["esmm"],
):
    approve() >> promote()
