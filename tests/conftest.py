"""What all tests share: one Spark session, and no deadlines for hypothesis."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from pyspark.sql import SparkSession

from jobs.session import spark_session

# The first example of a kernel's test compiles the kernel.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session with two threads and few shuffle partitions."""
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
