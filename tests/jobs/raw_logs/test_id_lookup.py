"""Counting ids and looking them up, without Spark, against plain Python."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.errors import InputError
from jobs.id_tables.count_source import IdCounter
from jobs.id_tables.token_counter import BROKEN_LINES, GOOD_LINES
from jobs.raw_logs import id_lookup, packed_rows
from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import LogFile
from jobs.raw_logs.source import Parser
from jobs.sample_writer.unpack import Unpacker
from schemas import ids
from storage.json_files import write_json
from tests.fixtures import few_ids, raw_lines
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS

BUCKETS = {f.name: 97 + i for i, f in enumerate(FIELDS)}
SCHEMA = ALI_CCP.with_buckets(BUCKETS)
SEED = 5
MIN_COUNT = {"205": 3, "110_14": 2, "121": 2}
VOCABULARY = ("121", "301", "853")
SETTINGS = ids.IdSettings(SEED, BUCKETS, MIN_COUNT, VOCABULARY)


def text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def counted(counter: IdCounter, chunks: list[Chunk]) -> tuple[Counter[tuple[int, int]], int]:
    """Counts by (field index, id) of all batches together, and the number of batches."""
    found: Counter[tuple[int, int]] = Counter()
    batches = [batch for chunk in chunks for batch in counter.add(chunk)] + list(counter.finish())
    for batch in batches:
        for row in batch.to_pylist():
            found[row["field"], row["id"]] += row["count"]
    return found, len(batches)


@settings(max_examples=60)
@given(
    features=st.lists(
        st.tuples(st.sampled_from(["109_14", "110_14"]), st.integers(0, 10**18 - 1) | st.integers(0, 3))
    ),
    num_slots=st.sampled_from([2, 4, 64]),
)
def test_ids_are_counted_whatever_the_size_of_the_table(features: list[tuple[str, int]], num_slots: int):
    listed = "\x01".join(raw_lines.feature(name, i, "1.0") for name, i in features)
    line = f"{'0' * 16},{len(features)},{listed}\n".encode()
    found, _ = counted(IdCounter(True, ALI_CCP, num_slots=num_slots), [Chunk(0, line), Chunk(0, line)])
    expected = Counter({(ALI_CCP.index[name], i): 2 * n for (name, i), n in Counter(features).items()})
    assert found == expected + Counter({(GOOD_LINES, 0): 2})


def test_only_good_lines_count_and_a_table_too_small_is_handed_over_in_pieces():
    logs = few_ids.repeating_logs(seed=1, num_contexts=60)
    bad = ["x", logs.skeleton[0].replace(",", ",7", 1)]
    lines = text(logs.skeleton + bad)
    cut = lines.index(b"\n", len(lines) // 2) + 1
    chunks = [
        Chunk(0, lines[:cut]),
        Chunk(cut, lines[cut:] + b"1,0,0", unterminated=True),
        Chunk(len(lines), b"1,0,0,00", too_long=True),
    ]
    skeleton_only = few_ids.count_ids(raw_lines.RawLogs(skeleton=logs.skeleton))
    expected = {
        (ALI_CCP.index[name], i): n for name, counts in skeleton_only.items() for i, n in counts.items()
    }
    expected |= {(GOOD_LINES, 0): len(logs.skeleton), (BROKEN_LINES, 0): 4}
    large, few_batches = counted(IdCounter(False, ALI_CCP), chunks)
    small, many_batches = counted(IdCounter(False, ALI_CCP, num_slots=128), chunks)
    assert large == small == expected
    assert many_batches > few_batches == 2


def test_a_hot_id_is_one_row():
    line = raw_lines.feature("109_14", 7, "1.0")
    lines = f"{'0' * 16},1000,{chr(1).join([line] * 1000)}\n".encode() * 50
    found, num_batches = counted(IdCounter(True, ALI_CCP), [Chunk(0, lines)])
    assert found == Counter({(ALI_CCP.index["109_14"], 7): 50_000, (GOOD_LINES, 0): 50})
    assert num_batches == 2


def publish(folder: Path, known: dict[str, dict[int, int]], digest: str, num_files: int = 2) -> ids.Reference:
    """An id table written by hand, its rows in no order."""
    rows = [(name, i, 1, b) for name, of_field in known.items() for i, b in of_field.items()]
    for part in range(num_files):
        table = pa.table(list(zip(*rows[part::num_files], strict=True)), schema=ids.arrow_schema())
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"part-{part}.parquet")
    fields = {f.name: {"kept_ids": len(known.get(f.name, ()))} for f in FIELDS}
    content = {
        "version": ids.VERSION, "digest": digest, "hash_seed": SEED, "buckets": BUCKETS,
        "min_count": MIN_COUNT, "vocabulary": list(VOCABULARY), "fields": fields,
    }  # fmt: skip
    write_json(f"{folder}/{ids.MANIFEST_NAME}", content)
    (folder / "_SUCCESS").touch()
    reference = ids.require_fit(str(folder), SETTINGS)
    assert reference is not None
    return reference


@pytest.fixture
def known() -> dict[str, dict[int, int]]:
    counts = few_ids.count_ids(few_ids.repeating_logs(seed=2, num_contexts=40))
    return few_ids.known_buckets(counts, BUCKETS, SEED, MIN_COUNT, VOCABULARY)


def parse(logs: raw_lines.RawLogs, table: id_lookup.IdTable) -> pa.Table:
    """The samples of some logs, parsed with an id table."""
    batches = []
    for number, lines in enumerate((logs.common, logs.skeleton)):
        parser = Parser(LogFile(number, "x.csv", number == 0, 0), SCHEMA, SEED, table)
        batches += list(parser.rows(Chunk(0, text(lines))))
    order = [("key", "ascending"), ("kind", "ascending"), ("order", "ascending")]
    rows = pa.Table.from_batches(batches, packed_rows.arrow_schema()).sort_by(order).combine_chunks()
    unpacker = Unpacker(SCHEMA, max_impressions=100)
    return pa.Table.from_batches(
        [*(t for b in rows.to_batches() for t in unpacker.add(b)), *unpacker.finish()]
    )


def test_the_parser_gives_known_and_unknown_ids_their_buckets(tmp_path, known, monkeypatch):
    table = id_lookup.load(publish(tmp_path / "ids", known, "d1"), SCHEMA)
    later = few_ids.repeating_logs(seed=3, num_contexts=40, most_ids=120)  # half of its ids are new

    def expected(name: str, feature_id: int, size: int, seed: int) -> int:
        return few_ids.expected_bucket(known, name, feature_id, size, seed)

    monkeypatch.setattr(raw_lines, "bucket", expected)
    found = raw_lines.impressions_of_samples(parse(later, table))
    wanted = raw_lines.expected_impressions(later, BUCKETS, SEED)
    assert found.keys() == wanted.keys()
    for sample_id, impression in wanted.items():
        for name, values in impression["fields"].items():
            assert [b for b, _ in found[sample_id]["fields"][name]] == [b for b, _ in values], name


def test_a_serving_system_finds_the_same_buckets(known):
    flat = {(name, i): b for name, of_field in known.items() for i, b in of_field.items()}
    for f in FIELDS:
        for feature_id in [0, 1_000_003, 5_000_015, 7, 10**18 - 1]:
            expected = few_ids.expected_bucket(known, f.name, feature_id, BUCKETS[f.name], SEED)
            assert ids.bucket_of(f.name, feature_id, SETTINGS, flat) == expected


def test_a_table_is_loaded_once_by_a_process(tmp_path, known):
    reference = publish(tmp_path / "ids", known, "d2")
    assert id_lookup.load(reference, SCHEMA) is id_lookup.load(reference, SCHEMA)
    assert id_lookup.load(None, SCHEMA) is None


def test_a_table_that_was_replaced_or_is_incomplete_is_refused(tmp_path, known):
    reference = publish(tmp_path / "ids", known, "d3")
    with pytest.raises(InputError, match="expected the id table old, found d3"):
        id_lookup.load(ids.Reference(path=reference["path"], digest="old"), SCHEMA)
    (tmp_path / "ids" / "part-1.parquet").unlink()
    with pytest.raises(InputError, match="does not hold the ids that its _ids.json counts"):
        id_lookup.load(ids.Reference(path=reference["path"], digest="d3"), SCHEMA)
    (tmp_path / "ids" / "part-1.parquet").write_bytes((tmp_path / "ids" / "part-0.parquet").read_bytes())
    with pytest.raises(InputError, match="does not hold the ids that its _ids.json counts"):
        id_lookup.load(ids.Reference(path=reference["path"], digest="d3"), SCHEMA)


def test_a_field_whose_ids_are_all_unknown(tmp_path, known):
    table = id_lookup.load(publish(tmp_path / "ids", known | {"205": {}}, "d4"), SCHEMA)
    line = f"1,0,0,{'0' * 16},1,{raw_lines.feature('205', 7, '1.0')}"
    found = parse(raw_lines.RawLogs(skeleton=[line], common=[f"{'0' * 16},0,"]), table)
    assert found["item_205"].to_pylist() == [[1]]


@pytest.mark.parametrize("num_ids", [0, 1, 2, 3, 4, 5, 1000, 1024, 1025])
def test_at_most_half_of_the_slots_are_in_use_and_one_is_free(num_ids: int):
    slots = id_lookup.num_slots_for(num_ids)
    assert slots & (slots - 1) == 0
    assert max(1, 2 * num_ids) <= slots < max(2, 4 * num_ids)
    assert slots > num_ids


def test_expected_collision_rate_against_a_simulation():
    rng = np.random.default_rng(0)
    drawn = [np.unique(rng.integers(0, 500, 300), return_counts=True)[1] for _ in range(400)]
    measured = np.mean([counts[counts > 1].sum() / 300 for counts in drawn])
    assert ids.expected_collision_rate(300, 500) == pytest.approx(measured, abs=0.005)
    assert ids.expected_collision_rate(0, 500) == ids.expected_collision_rate(1, 500) == 0
