"""What every use of MLflow's client shares. It is optional, and imported when it is used and not before."""

import logging
import os
from typing import Any

from cli.packages import require_package
from esmm.config import flatten

DATABASE_NAME = "mlflow.db"
LONGEST_VALUE = 6000  # characters that MLflow takes for a parameter
PACKAGES = ("mlflow", "sqlalchemy", "alembic")
# What MLflow's client does unless the user's environment says otherwise: tell nobody of its use, and give a
# server that is down a few seconds and not minutes, for which the workers would wait.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def prepare(needed_by: str, otherwise: str = "") -> None:
    """Make MLflow ready to be imported, or an `InputError` as of `require_package`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for package in PACKAGES:
        require_package(package, needed_by, otherwise)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def client_errors() -> tuple[type[Exception], ...]:
    """What MLflow's client raises where its store is not there; that of a database comes as it is."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError


def parameters(config: dict[str, Any]) -> dict[str, str]:
    """A configuration as MLflow's parameters, by the names that `--set` has for them."""
    return {name: str(value)[:LONGEST_VALUE] for name, value in flatten(config).items()}
