"""One hash in Python, in Spark's own `xxhash64` and in the xxhash package."""

import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.building.plain_spark import bucket as spark_bucket
from schemas.fields import Field
from schemas.hashing import bucket, field_salt, known_bucket, xxh64
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS

# (field, id, buckets, seed): bucket. Trained embeddings and stored samples depend on these numbers:
# if one changes, the hash has changed, and SCHEMA_VERSION must too.
GOLDEN: dict[tuple[str, int, int, int], int] = {
    ("101", 1, 524288, 0): 482190,
    ("101", 295787, 524288, 0): 292028,
    ("109_14", 4509, 32768, 0): 14585,
    ("110_14", 10091378, 4194304, 0): 671148,
    ("150_14", 0, 262144, 0): 36704,
    ("205", 9089731, 4194304, 0): 508563,
    ("205", 9089731, 4194304, 1): 1307424,
    ("206", 9223372036854775807, 32768, -5): 4098,
    ("210", 7, 16384, 9223372036854775807): 10572,
    ("301", 1, 512, 0): 373,
    ("853", 12345678901, 2, 3): 1,
}
# Test values of the xxHash specification's own implementation, seed 0.
PUBLISHED = {b"": 0xEF46DB3751D8E999, b"a": 0xD24EC4F1A98C6E5B, b"abc": 0x44BC2CF5AD770999}

UNSIGNED = st.integers(0, 2**64 - 1)


def package_bucket(field_name: str, feature_id: int, buckets: int, seed: int) -> int:
    """The formula at the top of schemas.hashing, by the xxhash package."""
    salt = xxhash.xxh64_intdigest(seed.to_bytes(8, "little", signed=True), 42)
    salt = xxhash.xxh64_intdigest(field_name.encode(), salt)
    hashed = xxhash.xxh64_intdigest(feature_id.to_bytes(8, "little", signed=True), salt)
    return 1 + hashed % 2**63 % (buckets - 1)


def test_published_values() -> None:
    assert {data: xxh64(data) for data in PUBLISHED} == PUBLISHED


def test_golden_buckets_in_python() -> None:
    assert {key: bucket(*key) for key in GOLDEN} == GOLDEN


def test_golden_buckets_by_the_xxhash_package() -> None:
    assert {key: package_bucket(*key) for key in GOLDEN} == GOLDEN


def test_golden_buckets_in_spark(spark: SparkSession) -> None:
    columns = [
        spark_bucket(Field(name, "item", buckets), F.lit(feature_id).cast("long"), seed)
        for name, feature_id, buckets, seed in GOLDEN
    ]
    found = spark.range(1).select(*(column.alias(str(index)) for index, column in enumerate(columns)))
    assert list(found.collect()[0]) == list(GOLDEN.values())


@given(data=st.binary(max_size=31), seed=UNSIGNED)
def test_xxh64_equals_the_xxhash_package(data: bytes, seed: int) -> None:
    assert xxh64(data, seed) == xxhash.xxh64_intdigest(data, seed)


@given(
    name=st.sampled_from(list(ALI_CCP.index)),
    feature_id=st.integers(0, 2**63 - 1),
    buckets=st.integers(2, 2**31),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_bucket_equals_the_xxhash_package(name: str, feature_id: int, buckets: int, seed: int) -> None:
    found = bucket(name, feature_id, buckets, seed)
    assert found == package_bucket(name, feature_id, buckets, seed)
    assert 1 <= found < buckets
    if buckets > 2:
        # In fields with an id table one bucket more is taken, and the ids share the others.
        assert known_bucket(name, feature_id, buckets, seed) == 1 + package_bucket(
            name, feature_id, buckets - 1, seed
        )


def test_fields_are_salted_apart() -> None:
    assert len({field_salt(field.name, 0) for field in FIELDS}) == len(FIELDS)
