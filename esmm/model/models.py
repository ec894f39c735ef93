"""Models by their name: each is the file of that name in this folder, its class spelt without underscores."""

from importlib import import_module
from typing import cast

from esmm.model.network import Network


def network_class(name: str) -> type[Network]:
    """The network of `model.name`: `escm2_ips` is class Escm2Ips of escm2_ips.py."""
    found = getattr(import_module(f"esmm.model.{name}"), name.title().replace("_", ""))
    return cast(type[Network], found)
