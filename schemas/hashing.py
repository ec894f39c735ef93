"""Which bucket an id falls into: one documented 64-bit hash for Spark, Python and serving.

The hash is xxHash64 (specification: https://github.com/Cyan4973/xxHash, `doc/xxhash_spec.md`),
chained the way Spark's own `xxhash64(seed, field, id)` chains it, so that plain Spark SQL, this
module and the compiled kernels agree:

    salt(field)  = XXH64(field name, seed=XXH64(seed as 8 bytes, seed=42))
    hash(id)     = XXH64(id as 8 little-endian bytes, seed=salt)            a whole number
                 = XXH64(id in UTF-8, seed=salt)                            any other text
    bucket(id)   = 1 + (hash & (2**63 - 1)) mod (buckets - 1)        bucket 0 means missing

In a field with an id table (`schemas.ids`) bucket 1 means rare or unknown, and a known id that has no
bucket of its own falls into

    bucket(id)   = 2 + (hash & (2**63 - 1)) mod (buckets - 2)

Text that is written as a whole number is that number: 7 and "7" are one id, whatever the type of the column
that they come from. It has up to 18 digits, perhaps a minus before them, and no needless zero: "007" is other
text. Null and the empty text are no id: the field is missing.
"""

import re

HASH_NAME = "xxhash64-chain"
MISSING = 0
RARE = 1  # only in fields with an id table
SPARK_SEED = 42
MASK = (1 << 64) - 1
POSITIVE = (1 << 63) - 1
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)

PRIME1 = 0x9E3779B185EBCA87
PRIME2 = 0xC2B2AE3D27D4EB4F
PRIME3 = 0x165667B19E3779F9
PRIME4 = 0x85EBCA77C2B2AE63
PRIME5 = 0x27D4EB2F165667C5


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & MASK


def _avalanche(acc: int) -> int:
    acc = ((acc ^ (acc >> 33)) * PRIME2) & MASK
    acc = ((acc ^ (acc >> 29)) * PRIME3) & MASK
    return acc ^ (acc >> 32)


def _round(acc: int, lane: int) -> int:
    return _rotate((acc + lane * PRIME2) & MASK, 31) * PRIME1 & MASK


def _stripes(data: bytes, seed: int) -> int:
    """What the whole stripes of 32 bytes at the beginning come to."""
    accs = [seed + PRIME1 + PRIME2, seed + PRIME2, seed, seed - PRIME1]
    accs = [acc & MASK for acc in accs]
    for position in range(0, len(data) - 31, 32):
        for lane in range(4):
            begin = position + 8 * lane
            accs[lane] = _round(accs[lane], int.from_bytes(data[begin : begin + 8], "little"))
    total = sum(_rotate(acc, bits) for acc, bits in zip(accs, (1, 7, 12, 18), strict=True)) & MASK
    for acc in accs:
        total = ((total ^ _round(0, acc)) * PRIME1 + PRIME4) & MASK
    return total


def xxh64(data: bytes, seed: int = 0) -> int:
    """XXH64 of some bytes, unsigned."""
    acc = _stripes(data, seed) if len(data) >= 32 else seed + PRIME5
    acc = (acc + len(data)) & MASK
    position = len(data) // 32 * 32
    while position + 8 <= len(data):
        acc ^= _round(0, int.from_bytes(data[position : position + 8], "little"))
        acc = (_rotate(acc, 27) * PRIME1 + PRIME4) & MASK
        position += 8
    if position + 4 <= len(data):
        lane = int.from_bytes(data[position : position + 4], "little")
        acc ^= (lane * PRIME1) & MASK
        acc = (_rotate(acc, 23) * PRIME2 + PRIME3) & MASK
        position += 4
    for byte in data[position:]:
        acc ^= (byte * PRIME5) & MASK
        acc = (_rotate(acc, 11) * PRIME1) & MASK
    return _avalanche(acc)


def field_salt(field_name: str, seed: int) -> int:
    """Unsigned 64-bit salt of a field: the seed with which its ids are hashed."""
    seeded = xxh64((seed & MASK).to_bytes(8, "little"), SPARK_SEED)
    return xxh64(field_name.encode(), seeded)


def id_bytes(feature_id: int | str) -> bytes:
    """What is hashed of a raw id."""
    if isinstance(feature_id, str):
        if not WHOLE_NUMBER.fullmatch(feature_id):
            return feature_id.encode()
        feature_id = int(feature_id)
    return (feature_id & MASK).to_bytes(8, "little")


def hash_id(field_name: str, feature_id: int | str, seed: int) -> int:
    """Unsigned 64-bit hash of a raw id of a field."""
    return xxh64(id_bytes(feature_id), field_salt(field_name, seed))


def bucket(field_name: str, feature_id: int | str, buckets: int, seed: int) -> int:
    """Bucket in 1..buckets-1 of a raw id of a field without an id table."""
    return 1 + (hash_id(field_name, feature_id, seed) & POSITIVE) % (buckets - 1)


def known_bucket(field_name: str, feature_id: int | str, buckets: int, seed: int) -> int:
    """Bucket in 2..buckets-1 of a known id of a field with an id table, where a hash decides."""
    return 2 + (hash_id(field_name, feature_id, seed) & POSITIVE) % (buckets - 2)
