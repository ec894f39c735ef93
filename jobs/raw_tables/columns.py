"""What a schema takes of a table, as Spark columns of few types: ids are long or string, weights float.

key                     of the context
sample, click, conversion of an impression, and action: whether there was any; -1 where one is no label
ids_N, weights_N        of the N-th field of the schema; arrays where it is multi-valued
others                  numbers, named as the columns of the samples that they go to
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import and_
from typing import NamedTuple

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from cli.errors import InputError
from cli.nearest import did_you_mean
from schemas.fields import Field
from schemas.numbers import Number
from schemas.samples import ACTION, WEIGHT
from schemas.schema import Schema, Tables

WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
TEXT = (T.StringType, T.CharType, T.VarcharType)
NUMBER = (*WHOLE, T.FloatType, T.DoubleType, T.DecimalType)


class Taken(NamedTuple):
    """A column under its name here, and what the table calls it."""

    name: str
    source: str
    column: Column


class UnfitError(Exception):
    """A column that is not there, or is not what the schema says; the message is for the user."""


def taken_of_contexts(table: DataFrame, schema: Schema, where: str) -> list[Taken]:
    """What is taken of the table of contexts; where: its name. All mistakes come in one `InputError`."""
    return _Reader(table, schema, where).read(schema.user_fields, schema.user_numbers, labels=False)


def taken_of_impressions(table: DataFrame, schema: Schema, where: str) -> list[Taken]:
    """What is taken of the table of impressions."""
    return _Reader(table, schema, where).read(
        schema.impression_fields, schema.impression_numbers, labels=True
    )


def require_tables(schema: Schema) -> Tables:
    """What a schema says of tables; an `InputError` where it is one of text logs."""
    if schema.tables is None:
        raise InputError(
            f"schema {schema.name}: expected a section tables, which says where the tables have their keys "
            "and labels, found none. docs/own_logs.md says what is in it."
        )
    return schema.tables


class _Reader:
    """Finds the columns of one table and collects what is wrong with them."""

    def __init__(self, table: DataFrame, schema: Schema, where: str) -> None:
        self._table = table
        self._schema = schema
        self._where = where
        self._mistakes: list[str] = []

    def read(self, fields: Sequence[Field], numbers: Sequence[Number], labels: bool) -> list[Taken]:
        found: list[Taken] = []
        tables = require_tables(self._schema)
        parts = [self._context_key(tables), *(self._field(field) for field in fields)]
        parts += [self._number(number.column, number.source or number.name) for number in numbers]
        if labels:
            parts += [self._sample_id(tables), self._label("click", tables.click)]
            parts += [self._label("conversion", tables.conversion)]
            parts += [self._actions(tables.actions)] if tables.actions else []
            parts += [self._number(WEIGHT, tables.weight)] if tables.weight else []
        for part in parts:
            try:
                found += part
            except UnfitError as error:
                self._mistakes.append(f"  {error}")
        if self._mistakes:
            raise InputError(
                f"{self._where}: {len(self._mistakes)} mistake(s) in its columns:\n"
                + "\n".join(self._mistakes)
                + f"\nMend schema {self._schema.name}, or the table."
            )
        return found

    def _context_key(self, tables: Tables) -> Iterator[Taken]:
        source = tables.context_id
        yield Taken("key", source, _as_id(source, self._type(source), F.col(source)))

    def _sample_id(self, tables: Tables) -> Iterator[Taken]:
        yield Taken("sample", tables.sample_id, self._kept_id(tables.sample_id, tables.sample_id_type))

    def _actions(self, sources: Sequence[str]) -> Iterator[Taken]:
        labels = [one.column for source in sources for one in self._label(ACTION, source)]
        are_labels = reduce(and_, (label.isin(0, 1) for label in labels))
        any_of = reduce(Column.bitwiseOR, labels)
        yield Taken(ACTION, ", ".join(sources), F.when(are_labels, any_of).otherwise(-1).cast("long"))

    def _label(self, name: str, source: str) -> Iterator[Taken]:
        kind = self._type(source)
        if not isinstance(kind, (*WHOLE, T.BooleanType)):
            raise UnfitError(f"{source}: expected 0 and 1 or a boolean, found {kind.simpleString()}")
        yield Taken(name, source, F.col(source).cast("long"))

    def _number(self, name: str, source: str) -> Iterator[Taken]:
        kind = self._type(source)
        if not isinstance(kind, NUMBER):
            raise UnfitError(f"{source}: expected numbers, found {kind.simpleString()}")
        yield Taken(name, source, F.col(source).cast("float"))

    def _field(self, field: Field) -> Iterator[Taken]:
        place = self._schema.index[field.name]
        source = field.source or field.name
        ids, weights = self._list(field, source) if field.multi else self._single(field, source)
        if field.name == self._schema.user_id and self._schema.user_id_type == "int64":
            self._kept_id(source, "int64")
        yield Taken(f"ids_{place}", source, ids)
        if weights is not None:
            yield Taken(f"weights_{place}", field.weight_source or f"{source}, weights", weights)

    def _type(self, source: str) -> T.DataType:
        try:
            return self._table.select(F.col(source)).schema[0].dataType
        except AnalysisException as error:
            near = did_you_mean(source, self._table.columns)
            raise UnfitError(f"{source}: there is no such column{near}") from error

    def _kept_id(self, source: str, kind: str) -> Column:
        """An id that samples keep as it is."""
        found = self._type(source)
        column = _as_id(source, found, F.col(source))
        if kind == "int64" and not isinstance(found, WHOLE):
            raise UnfitError(
                f"{source}: expected whole numbers, found {found.simpleString()}; the schema may say string "
                "for sample_id_type or user_id_type"
            )
        return column.cast("string") if kind == "string" else column

    def _weight(self, source: str) -> Column:
        kind = self._type(source)
        if not isinstance(kind, NUMBER):
            raise UnfitError(f"{source}: expected numbers as weights, found {kind.simpleString()}")
        return F.col(source).cast("float")

    def _single(self, field: Field, source: str) -> tuple[Column, Column | None]:
        kind = self._type(source)
        if isinstance(kind, (T.ArrayType, T.MapType)):
            raise UnfitError(
                f"{source}: found {kind.simpleString()}; field {field.name} needs multi: true for it"
            )
        if not field.weighted:
            return _as_id(source, kind, F.col(source)), None
        if field.weight_source is None:
            raise UnfitError(f"{source}: field {field.name} is weighted and needs a weight_source")
        return _as_id(source, kind, F.col(source)), self._weight(field.weight_source)

    def _list(self, field: Field, source: str) -> tuple[Column, Column | None]:
        kind = self._type(source)
        column = F.col(source)
        if not isinstance(kind, (T.ArrayType, T.MapType)):
            raise UnfitError(
                f"{source}: expected an array, found {kind.simpleString()}; is {field.name} multi?"
            )
        if not field.weighted:
            if not isinstance(kind, T.ArrayType):
                raise UnfitError(f"{source}: expected an array, found {kind.simpleString()}; is it weighted?")
            return _as_ids(source, kind.elementType, column), None
        if isinstance(kind, T.MapType):
            weights = _as_weights(source, kind.valueType, F.map_values(column))
            return _as_ids(source, kind.keyType, F.map_keys(column)), weights
        if isinstance(kind.elementType, T.StructType):
            return _of_structs(source, kind.elementType, column)
        if field.weight_source is None:
            raise UnfitError(
                f"{source}: field {field.name} is weighted: expected (id, weight) structs, a map, or a "
                f"weight_source, found {kind.simpleString()}"
            )
        other = self._type(field.weight_source)
        if not isinstance(other, T.ArrayType):
            raise UnfitError(f"{field.weight_source}: expected an array, found {other.simpleString()}")
        weights = _as_weights(field.weight_source, other.elementType, F.col(field.weight_source))
        return _as_ids(source, kind.elementType, column), weights


def _of_structs(source: str, kind: T.StructType, column: Column) -> tuple[Column, Column]:
    if len(kind.fields) != 2:
        raise UnfitError(f"{source}: expected structs of id and weight, found {kind.simpleString()}")
    first, second = kind.fields
    ids = F.transform(column, lambda pair: pair[first.name])
    weights = F.transform(column, lambda pair: pair[second.name])
    return _as_ids(source, first.dataType, ids), _as_weights(source, second.dataType, weights)


def _as_id(source: str, kind: T.DataType, column: Column) -> Column:
    if isinstance(kind, WHOLE):
        return column.cast("long")
    if isinstance(kind, TEXT):
        return column.cast("string")
    raise UnfitError(f"{source}: expected ids, whole numbers or strings, found {kind.simpleString()}")


def _as_ids(source: str, kind: T.DataType, column: Column) -> Column:
    _as_id(source, kind, column)
    return column.cast("array<long>" if isinstance(kind, WHOLE) else "array<string>")


def _as_weights(source: str, kind: T.DataType, column: Column) -> Column:
    if not isinstance(kind, NUMBER):
        raise UnfitError(f"{source}: expected numbers as weights, found {kind.simpleString()}")
    return column.cast("array<float>")
