"""What a column of a table can be in a schema, by its type alone."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pyspark.sql import Column as SparkColumn
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.raw_tables.columns import NUMBER, TEXT, WHOLE

# id: a whole number or text. ids: an array of them. weighted: an array of (id, weight) or a map.
# number: with a fraction. weights: an array of numbers. flag: a boolean, which may be a label.
Kind = Literal["id", "ids", "weighted", "number", "weights", "flag", "other"]
ID = (*WHOLE, *TEXT)
PLAIN = re.compile(r"\w+")


class Column(NamedTuple):
    """A column, or a member of a struct. source: as a schema names it; type: in Spark's words."""

    source: str
    kind: Kind
    type: str
    is_whole: bool = False  # an id that is a number


def columns_of(table: T.StructType) -> list[Column]:
    """All columns of a table, members of structs one by one."""
    return [
        Column(".".join(map(_quoted, path)), kind_of(data), data.simpleString(), isinstance(data, WHOLE))
        for path, data in _leaves(table, ())
    ]


def kind_of(data: T.DataType) -> Kind:
    """What the samples' builder (`jobs.raw_tables.columns`) could take such a column for."""
    if isinstance(data, ID):
        return "id"
    if isinstance(data, T.BooleanType):
        return "flag"
    if isinstance(data, NUMBER):
        return "number"
    if isinstance(data, T.MapType):
        return "weighted" if _is_pair(data.keyType, data.valueType) else "other"
    if isinstance(data, T.ArrayType):
        return _kind_of_list(data.elementType)
    return "other"


def _kind_of_list(element: T.DataType) -> Kind:
    if isinstance(element, ID):
        return "ids"
    if isinstance(element, NUMBER):
        return "weights"
    members = [member.dataType for member in element.fields] if isinstance(element, T.StructType) else []
    return "weighted" if len(members) == 2 and _is_pair(*members) else "other"


def _is_pair(first: T.DataType, second: T.DataType) -> bool:
    return isinstance(first, ID) and isinstance(second, NUMBER)


def _leaves(struct: T.StructType, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], T.DataType]]:
    for member in struct.fields:
        path = (*above, member.name)
        if isinstance(member.dataType, T.StructType):
            yield from _leaves(member.dataType, path)
        else:
            yield path, member.dataType


def _quoted(part: str) -> str:
    """A name as Spark reads it: what is more than a word, such as one with a dot, in back quotes."""
    return part if PLAIN.fullmatch(part) else "`" + part.replace("`", "``") + "`"


def unquoted(source: str) -> str:
    """The name without the quotes, for people and for names made of it."""
    parts = re.findall(r"`(?:[^`]|``)*`|[^.`]+", source)
    return ".".join(part[1:-1].replace("``", "`") if part.startswith("`") else part for part in parts)


def evened(column: Column) -> SparkColumn:
    """The column as one of few types: whole numbers and text as they are, or arrays of them; doubles; flags
    as 0 and 1; lists with weights as arrays of (id, weight), those of maps in an order of their own."""
    stands = F.col(column.source)
    if column.kind == "weighted":
        pairs = F.array_sort(F.map_entries(stands)) if column.type.startswith("map") else stands
        return pairs.cast("array<struct<id:string,weight:double>>")
    casts = {"number": "double", "weights": "array<double>", "flag": "int"}
    return stands.cast(casts[column.kind]) if column.kind in casts else stands
