"""spark-submit puts the folder jobs/ first on the workers' path: no name in it may hide another module."""

import pkgutil
import site
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

JOBS = Path(__file__).resolve().parents[2] / "jobs"


def test_no_room_or_command_hides_a_module_of_python_or_of_the_environment() -> None:
    ours = {module.name for module in pkgutil.iter_modules([str(JOBS)])}
    installed = {module.name for module in pkgutil.iter_modules(site.getsitepackages())}
    assert {"raw_logs", "build_samples"} <= ours and {"pyspark", "numpy"} <= installed
    others = sys.stdlib_module_names | installed | packages_distributions().keys()
    assert not ours & others
