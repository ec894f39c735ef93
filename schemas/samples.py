"""The samples: one Parquet row per group of impressions that share a context.

A row holds the context's fields once and its impressions as parallel lists. Every leaf is a flat
primitive list, so that Arrow hands over (values, offsets) without an object per row.
Per-impression multi-valued fields are three columns: all values of the row end to end,
how many belong to each impression, and the weights where the raw value is not constantly 1.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from schemas.hashing import HASH_NAME
from schemas.numbers import Number
from schemas.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
MANIFEST_NAME = "_manifest.json"
WEIGHT = "weight"  # of impressions
ACTION = "action"  # of clicked impressions, on the way to a conversion

ColumnType = Literal["int64", "int32", "int8", "float32", "string"]


@dataclass(frozen=True)
class Column:
    """One leaf column. is_list: a row holds a list of `type`, else one value."""

    name: str
    type: ColumnType
    is_list: bool
    meaning: str
    nullable: bool = False


@lru_cache(maxsize=8)
def columns(schema: Schema) -> tuple[Column, ...]:
    """All columns of the samples of some logs, in their order."""
    return (*_context_columns(schema), *_impression_columns(schema))


def _context_columns(schema: Schema) -> list[Column]:
    user_id = f"raw id of field {schema.user_id}; null where absent"
    context_id = "common_feature_index, 16 hexadecimal digits"
    if schema.tables:
        context_id = f"{schema.tables.context_id}, as text"
    columns = [
        Column("context_id", "string", False, context_id),
        Column("user_id", schema.user_id_type, False, user_id, nullable=True),
    ]
    for field in schema.user_fields:
        columns.append(Column(field.column, "int32", field.multi, f"bucket of {field.meaning}; 0 missing"))
        if field.weighted:
            columns.append(Column(field.weight_column, "float32", field.multi, f"values of {field.name}"))
    columns += [Column(number.column, "float32", False, _value(number)) for number in schema.user_numbers]
    return columns


def _value(number: Number) -> str:
    return f"{number.meaning or number.name}; NaN missing"


def _impression_columns(schema: Schema) -> list[Column]:
    columns = [
        Column("sample_id", schema.sample_id_type, True, "sample_id of each impression"),
        Column("click", "int8", True, "0 or 1"),
        Column("conversion", "int8", True, "0 or 1; 1 only where click is 1"),
    ]
    if schema.has_actions:
        columns.append(Column(ACTION, "int8", True, "0 or 1; 1 only where click is 1: any of the actions"))
    if schema.has_weights:
        columns.append(Column(WEIGHT, "float32", True, "how much each impression counts in training"))
    for field in schema.impression_fields:
        columns.append(Column(field.column, "int32", True, f"bucket of {field.meaning}; 0 missing"))
        if field.multi:
            columns.append(
                Column(field.length_column, "int32", True, f"values of {field.name} per impression")
            )
        if field.weighted:
            columns.append(Column(field.weight_column, "float32", True, f"values of {field.name}"))
    columns += [
        Column(number.column, "float32", True, _value(number)) for number in schema.impression_numbers
    ]
    return columns


def arrow_schema(schema: Schema) -> "pa.Schema":
    """The samples as an Arrow schema, in the order of `columns`."""
    import pyarrow as pa

    def arrow_type(column: Column) -> pa.DataType:
        leaf = pa.type_for_alias(column.type)
        return pa.list_(pa.field("element", leaf, nullable=False)) if column.is_list else leaf

    return pa.schema([pa.field(c.name, arrow_type(c), nullable=c.nullable) for c in columns(schema)])


def spark_schema(schema: Schema) -> Any:
    """The samples as a Spark StructType, in the order of `columns`."""
    from pyspark.sql import types as T

    leaves = {
        "int64": T.LongType(),
        "int32": T.IntegerType(),
        "int8": T.ByteType(),
        "float32": T.FloatType(),
        "string": T.StringType(),
    }

    def spark_type(column: Column) -> T.DataType:
        leaf = leaves[column.type]
        return T.ArrayType(leaf, containsNull=False) if column.is_list else leaf

    return T.StructType([T.StructField(c.name, spark_type(c), c.nullable) for c in columns(schema)])


def fingerprint(schema: Schema, hash_seed: int, id_table: str | None = None) -> str:
    """Hash of everything that a trained embedding table depends on, 16 hexadecimal digits.

    id_table: the digest of the id table, where the samples have one. Two sample sets with one fingerprint
    have the same columns, the same bucket for every id and the same use of every number.
    """
    contract: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        # Not of actions, which only training asks for.
        "columns": [(c.name, c.type, c.is_list) for c in columns(schema) if c.name != ACTION],
        "hash": HASH_NAME,
        "hash_seed": hash_seed,
        "buckets": schema.buckets,
    }
    if id_table is not None:
        contract["id_table"] = id_table
    if schema.numbers:
        contract["numbers"] = [number.use for number in schema.numbers]
    return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()[:16]
