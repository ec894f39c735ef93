"""Which version is champion, for whoever wants to train from it or to serve it."""

from esmm.registry.evidence import require_intact
from esmm.registry.place import Place, is_new, reading
from esmm.registry.store import CHAMPION, Version

WAYS_OUT = "Make another one champion with esmm.registry rollback or esmm.registry promote."


def champion_of(place: Place, name: str) -> Version | None:
    """None, too, where nothing was ever registered: the first day asks before there is a registry.

    `InputError` where its checkpoint is gone or is another one by now.
    """
    if is_new(place):
        return None
    with reading(place, name) as store:
        found = store.read().with_alias(CHAMPION)
    if found is not None:
        require_intact(found, WAYS_OUT)
    return found
