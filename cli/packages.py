"""Optional packages: what an option or a command needs, and most installations are without."""

import importlib

from cli.errors import InputError


def require_package(name: str, needed_by: str, otherwise: str = "") -> None:
    """An `InputError` where a package is missing. otherwise: what can be done but install it."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{needed_by}: expected the Python package {name}, found none. Install it with "
            f"pip install --require-hashes --no-deps -r requirements/tracking.lock{otherwise}."
        ) from error
