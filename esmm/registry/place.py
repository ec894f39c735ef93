"""Where a registry is, a folder with an SQLite file or what else MLflow reaches, and who may change it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cli.errors import InputError
from esmm.mlflow_client import DATABASE_NAME, client_errors, prepare
from esmm.registry.store import Store
from storage.locks import wait_for_lock

ARTIFACTS_NAME = "artifacts"
LOCK_NAME = ".lock"


class Place(NamedTuple):
    """text: as --registry has it. folder: of an embedded one. lock: a file, held by who changes it."""

    text: str
    folder: Path | None
    lock: Path | None

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / DATABASE_NAME}" if self.folder else self.text


def place_of(registry: str, lock: str | None) -> Place:
    """What --registry and --lock say: a folder, or the URI of a server or database with one for the lock."""
    folder = None if "://" in registry else Path(registry).absolute()
    held = Path(lock) if lock else folder
    return Place(registry, folder, held / LOCK_NAME if held else None)


def is_new(place: Place) -> bool:
    """Whether nothing was ever registered there: no folder, or an empty one but for the lock."""
    if place.folder is None:
        return False
    if place.folder.is_dir():
        return {path.name for path in place.folder.iterdir()} <= {LOCK_NAME}
    return not place.folder.exists()


@contextmanager
def reading(place: Place, name: str) -> Iterator[Store]:
    """The registered model of this name, to be looked at."""
    _require_database(place)
    with _answering(place):
        yield Store.of(place.uri, name)


@contextmanager
def changing(place: Place, name: str, seconds: float, create: bool = False) -> Iterator[Store]:
    """The same under the lock, for which it waits, after the end of a change that was cut off.

    create: make the registry where it is new; else that is an `InputError`.
    """
    if place.lock is None:
        raise InputError(
            f"--registry {place.text}: expected --lock DIR, a folder that all who change this registry "
            "share, found none. MLflow itself keeps no two of them apart."
        )
    if create and is_new(place):
        place.lock.parent.mkdir(parents=True, exist_ok=True)
    elif not place.lock.parent.is_dir():
        raise InputError(f"{place.lock.parent}: expected a folder for the lock of the registry, found none.")
    with wait_for_lock(place.lock, seconds):
        if not (create and is_new(place)):
            _require_database(place)
        with _answering(place):
            artifacts = (place.folder / ARTIFACTS_NAME).as_uri() if place.folder else None
            store = Store.of(place.uri, name, artifacts)
            store.recover()
            yield store


def _require_database(place: Place) -> None:
    """MLflow would make a database that is not there, and try for minutes to open one that is broken."""
    if place.folder is None:
        return
    path = place.folder / DATABASE_NAME
    if not path.is_file():
        raise InputError(
            f"{path}: expected the registry's database, found none. Check --registry; restore the file, or "
            "begin a registry in an empty folder with esmm.registry register."
        )
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as database:
            database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path}: expected an SQLite database, found something else ({error}). Restore it from a copy."
        ) from error


@contextmanager
def _answering(place: Place) -> Iterator[None]:
    prepare("esmm.registry")
    try:
        yield
    except client_errors() as error:
        raise InputError(
            f"--registry {place.text}: MLflow cannot use it: {error}. Check that it is right and that its "
            "server is up. A change that was cut off is finished by the next one."
        ) from error
