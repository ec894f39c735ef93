"""What a page is made of: sections of blocks. The template knows these and nothing of metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """caption: what is in it and over which impressions. The first cell of a row heads it. A last column of
    words is `wordy`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    wordy: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Chart:
    """A drawing with the numbers below it, folded."""

    title: str
    svg: Markup
    numbers: Table
    note: str = ""
    kind: str = "chart"


@dataclass(frozen=True)
class Figure:
    """A number of the headline. over: which impressions; aside: what it is to be compared with."""

    name: str
    over: str
    value: str
    interval: str
    aside: str


@dataclass(frozen=True)
class Headline:
    """The numbers that are read first."""

    figures: Sequence[Figure]
    kind: str = "headline"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Listing:
    """A file or a command as it is, folded."""

    title: str
    text: str
    kind: str = "listing"


Block = Table | Chart | Headline | Text | Listing


@dataclass(frozen=True)
class Section:
    """name: its anchor. lead: what it answers, in a sentence."""

    name: str
    title: str
    lead: str
    blocks: Sequence[Block]
