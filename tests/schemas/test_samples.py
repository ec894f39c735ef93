"""The sample layout is a promise: it changes only together with its version number."""

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from schemas import samples
from tests.fixtures.ali_ccp import ALI_CCP

FIRST_BUCKETS = {"101": 1 << 19, "110_14": 1 << 22, "205": 1 << 22, "207": 1 << 20}


def test_the_layout_of_version_1_has_not_moved():
    assert samples.SCHEMA_VERSION == 1
    assert samples.fingerprint(ALI_CCP.with_buckets(FIRST_BUCKETS), hash_seed=0) == "993e6e842460ecdc"


def test_the_fingerprint_changes_with_every_setting_that_moves_a_bucket():
    first = samples.fingerprint(ALI_CCP, 0)
    others = {samples.fingerprint(ALI_CCP, 1)}
    for name, size in ALI_CCP.buckets.items():
        others.add(samples.fingerprint(ALI_CCP.with_buckets({name: size + 1}), 0))
    assert len(others) == 1 + len(ALI_CCP.fields)
    assert first not in others
    assert first == samples.fingerprint(ALI_CCP.with_buckets({}), 0)


def test_arrow_and_spark_see_the_same_columns():
    arrow = samples.arrow_schema(ALI_CCP)
    spark = samples.spark_schema(ALI_CCP)
    assert arrow.names == spark.names == [column.name for column in samples.columns(ALI_CCP)]
    for ours, theirs in zip(spark.fields, from_arrow_schema(arrow).fields, strict=True):
        assert (ours.name, ours.dataType.typeName()) == (theirs.name, theirs.dataType.typeName())
        if ours.dataType.typeName() == "array":
            assert ours.dataType.elementType == theirs.dataType.elementType


def test_every_leaf_is_a_flat_primitive():
    for field in samples.arrow_schema(ALI_CCP):
        leaf = field.type.value_type if pa.types.is_list(field.type) else field.type
        assert pa.types.is_primitive(leaf) or field.name == "context_id"
