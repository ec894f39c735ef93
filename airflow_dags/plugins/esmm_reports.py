"""Airflow's page shows the reports of the runs, below /esmm: the link of a task has somewhere to lead.

Set AIRFLOW__CORE__PLUGINS_FOLDER to this folder. Only pages are served, and only to those who are logged in.
"""

import sys
from pathlib import Path
from typing import Any, ClassVar

from airflow.api_fastapi.core_api.security import AccessView, requires_access_view
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse

sys.path.append(str(Path(__file__).resolve().parents[1]))

from esmm_settings import load

app = FastAPI(title="Reports of ESMM")


@app.get("/{path:path}", dependencies=[Depends(requires_access_view(AccessView.WEBSITE))])
def page(path: str) -> FileResponse:
    """A page in the folder of runs; 404 for all else that is there."""
    settings = load()
    runs = Path(settings.absolute(settings.data), "runs").resolve()
    file = (runs / (path or "index.html")).resolve()
    if file.suffix != ".html" or not file.is_relative_to(runs) or not file.is_file():
        raise HTTPException(404, f"there is no report {path}")
    return FileResponse(file)


class EsmmReports(AirflowPlugin):
    name = "esmm_reports"
    fastapi_apps: ClassVar[list[Any]] = [{"app": app, "url_prefix": "/esmm", "name": "Reports of ESMM"}]
