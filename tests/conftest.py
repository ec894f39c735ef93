"""One Spark session for all tests that need it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    """A local session with two threads and few shuffle partitions."""
    from jobs.session import spark_session  # Airflow's environment, which also reads this file, has no Spark

    options = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.default.parallelism": "4",
    }
    session = spark_session("tests", **options)
    yield session
    session.stop()
