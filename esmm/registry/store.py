"""The registry in MLflow: versions with tags, aliases that point to them, and changes that are made whole.

A change is several writes. It is noted first, in one tag of the registered model, and the note goes when all
writes are made. So with the note a change has happened: whoever reads sees it done, and the next one to
change something makes the writes of a change that was cut off, which alters nothing where they were made.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.errors import InputError
from schemas.promotion import Decision

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PENDING = "pending_change"
PAGE = 1000

CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"


class Version(NamedTuple):
    """A registered version. run: MLflow's, with parameters and metrics. tags: docs/registry.md."""

    number: int
    run_id: str
    tags: dict[str, str]

    @property
    def run(self) -> Path:
        """The run folder with the checkpoints."""
        return Path(self.tags["run"])

    @property
    def day(self) -> str:
        """The last day it was trained on, ISO."""
        return self.tags["day"]

    @property
    def parent(self) -> int | None:
        return int(self.tags["parent"]) if "parent" in self.tags else None

    @property
    def verdict(self) -> Decision | None:
        """What its gates have said, if they were asked."""
        return json.loads(self.tags["verdict"]) if "verdict" in self.tags else None


class State(NamedTuple):
    """All of it at one moment."""

    versions: dict[int, Version]
    aliases: dict[str, int]

    def require(self, number: int) -> Version:
        """A version, or an `InputError` with the nearest one."""
        if number in self.versions:
            return self.versions[number]
        nearest = min(self.versions, key=lambda known: abs(known - number), default=None)
        told = "there is none yet" if nearest is None else f"the nearest is {nearest}"
        raise InputError(f"version {number}: expected one of esmm.registry show, found none; {told}.")

    def after(self, change: "Change") -> "State":
        """With a change made."""
        versions = {
            number: one._replace(tags=one.tags | change.tags.get(number, {}))
            for number, one in self.versions.items()
        }
        aliases = {**self.aliases, **change.aliases}
        return State(versions, {alias: number for alias, number in aliases.items() if number is not None})

    def with_alias(self, alias: str) -> Version | None:
        """The version that an alias points to."""
        return self.require(self.aliases[alias]) if alias in self.aliases else None


@dataclass(frozen=True)
class Change:
    """tags: by version. aliases: the version that each shall point to, or None; in the order of writing."""

    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, int | None] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"tags": self.tags, "aliases": self.aliases})

    @classmethod
    def from_json(cls, text: str) -> "Change":
        content = json.loads(text)
        return cls({int(number): tags for number, tags in content["tags"].items()}, content["aliases"])


class Store:
    """One registered model and the experiment of its candidates' runs."""

    def __init__(self, client: "MlflowClient", name: str, artifacts: str | None) -> None:
        self.client = client
        self.name = name
        self.artifacts = artifacts  # where a new experiment keeps them; None: as the server says

    @classmethod
    def of(cls, uri: str, name: str, artifacts: str | None = None) -> "Store":
        from mlflow import MlflowClient

        return cls(MlflowClient(tracking_uri=uri, registry_uri=uri), name, artifacts)

    def read(self) -> State:
        """Empty where nothing was registered."""
        models = self.client.search_registered_models(f"name = '{self.name}'")
        if not models:
            return State({}, {})
        found = {int(one.version): self._version(one) for one in self._all_versions()}
        state = State(found, {alias: int(number) for alias, number in models[0].aliases.items()})
        pending = models[0].tags.get(PENDING)
        return state.after(Change.from_json(pending)) if pending else state

    def commit(self, change: Change) -> None:
        """Make a change, whole or not at all."""
        self.client.set_registered_model_tag(self.name, PENDING, change.to_json())
        self._apply(change)

    def recover(self) -> None:
        """Make the rest of a change that was cut off."""
        models = self.client.search_registered_models(f"name = '{self.name}'")
        if models and PENDING in models[0].tags:
            self._apply(Change.from_json(models[0].tags[PENDING]))

    def _apply(self, change: Change) -> None:
        for number, tags in change.tags.items():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)
        for alias, version in change.aliases.items():
            if version is None:
                self.client.delete_registered_model_alias(self.name, alias)
            else:
                self.client.set_registered_model_alias(self.name, alias, str(version))
        self.client.delete_registered_model_tag(self.name, PENDING)

    def _all_versions(self) -> "list[ModelVersion]":
        found: list[ModelVersion] = []
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return sorted(found, key=lambda one: int(one.version))

    @staticmethod
    def _version(one: "ModelVersion") -> Version:
        return Version(int(one.version), one.run_id or "", dict(one.tags))
