"""What is proposed of tables that were looked at: fields with their sides and sizes, and what to check."""

from dataclasses import dataclass

from jobs.schema_proposal.roles import Guess
from schemas.fields import Field, Side

KEYS = ("context_id", "sample_id", "click", "conversion")  # without which there is no schema of tables


@dataclass(frozen=True)
class ProposedField:
    """A field. counted: what was found of it, in words; checks: what a person should look at.

    is_left_out: it stands in the file as a comment only, and the checks say why.
    """

    field: Field
    counted: str
    checks: tuple[str, ...] = ()
    is_left_out: bool = False


@dataclass(frozen=True)
class ProposedNumber:
    """A number that is no id. source: its column, None where that is called the same."""

    name: str
    side: Side
    source: str | None
    log1p: bool
    counted: str
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A schema, with everything to check. read: what it was made of, a line each.

    roles: by name, of `survey.ROLES`; user_id and item_id are names of fields here. left_out: columns that
    no field can have, and why.
    """

    name: str
    read: tuple[str, ...]
    roles: dict[str, Guess]
    sample_id_type: str
    user_id_type: str
    fields: tuple[ProposedField, ...]
    numbers: tuple[ProposedNumber, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def kept(self) -> list[Field]:
        return [one.field for one in self.fields if not one.is_left_out]

    @property
    def missing(self) -> list[str]:
        """What has to be written into the file before it is a schema."""
        wanted = [f"{role}: {self.roles[role].note}" for role in KEYS if self.roles[role].source is None]
        is_user = {field.side == "user" for field in self.kept}
        if True not in is_user:
            wanted.append("fields: none of side user was found, and there must be one")
        if False not in is_user:
            wanted.append("fields: none of a side other than user was found, and there must be one")
        return wanted
