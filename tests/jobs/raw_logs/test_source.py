"""Byte ranges and the compiled parser against plain Python."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.raw_logs import packed_rows, text_format
from jobs.raw_logs.chunks import HEAD_BYTES, Chunk, read_chunks
from jobs.raw_logs.files import LogFile, files_to_json, open_log
from jobs.raw_logs.source import Parser, RawLogReader, split_ranges
from jobs.sample_writer.unpack import Unpacker
from schemas.raw_log import QUARANTINE_REASONS
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS, IMPRESSION_FIELDS
from tests.fixtures.raw_lines import expected_impressions, impressions_of_samples, random_logs

BUCKETS = {f.name: 97 + i for i, f in enumerate(FIELDS)}
SCHEMA = ALI_CCP.with_buckets(BUCKETS)
CONTEXT = "00000000000000ab"
ITEM = "205\x027\x031.0"


@settings(max_examples=200)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    ends_with_line_feed=st.booleans(),
    range_bytes=st.integers(1, 200),
    chunk_bytes=st.integers(1, 60),
)
def test_every_byte_is_in_exactly_one_range(lines, ends_with_line_feed, range_bytes, chunk_bytes):
    content = b"\n".join(lines) + (b"\n" if ends_with_line_feed and lines else b"")
    ranges = split_ranges([LogFile(0, "x.csv", True, len(content))], range_bytes)
    found, too_long = b"", []
    for task in ranges:
        for chunk in read_chunks(io.BytesIO(content), task.begin, task.end, chunk_bytes):
            assert content[chunk.offset :].startswith(chunk.lines)
            if chunk.too_long:
                line = content[chunk.offset :].partition(b"\n")
                too_long.append(len(line[0]))
                found += line[0] + line[1]
            else:
                assert chunk.unterminated == (not chunk.lines.endswith(b"\n"))
                found += chunk.lines
    assert found == content
    assert all(length >= chunk_bytes for length in too_long)
    assert len(too_long) == sum(len(line) >= chunk_bytes for line in content.split(b"\n"))


def test_a_line_of_50_megabytes_is_set_aside_in_bounded_memory(tmp_path: Path):
    good = skeleton_line().encode() + b"\n"
    path = tmp_path / "x.csv"
    path.write_bytes(good + b"8" * 50_000_000 + b"\n" + good)
    file = LogFile(0, str(path), False, path.stat().st_size)
    parser = Parser(file, SCHEMA, 5)
    tracemalloc.start()
    rows = []
    for task in split_ranges([file], 20_000_000):
        with open_log(file) as stream:
            for chunk in read_chunks(stream, task.begin, task.end):
                rows += [row for batch in parser.rows(chunk) for row in batch.to_pylist()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # some chunks of 8 MiB and what is parsed from one, not the line again and again
    assert [row["kind"] for row in rows] == [
        packed_rows.KIND_IMPRESSIONS,
        packed_rows.KIND_QUARANTINED,
        packed_rows.KIND_IMPRESSIONS,
    ]
    blob = rows[1]["blob"]
    assert QUARANTINE_REASONS[int.from_bytes(blob[:4], "little")] == "line_too_long"
    assert blob[8:] == b"8" * HEAD_BYTES
    assert rows[1]["order"] == len(good)


def test_a_compressed_file_is_one_range_and_reads_the_same(tmp_path: Path):
    content = b"".join(b"%d,line\n" % i for i in range(1000))
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(content))
    file = LogFile(0, str(path), True, path.stat().st_size)
    (task,) = split_ranges([file], 10)
    with open_log(file) as stream:
        assert b"".join(chunk.lines for chunk in read_chunks(stream, task.begin, task.end, 100)) == content


def parse(text: bytes, common: bool, base: int = 0, unterminated: bool = False) -> pa.Table:
    parser = Parser(LogFile(3, "x.csv", common, 0), SCHEMA, 5)
    return pa.Table.from_batches(
        parser.rows(Chunk(base, text, unterminated)), schema=packed_rows.arrow_schema()
    )


def skeleton_line(**changes: str) -> str:
    columns = {
        "sample_id": "1", "click": "0", "conversion": "0", "context": CONTEXT, "count": "1", "features": ITEM,
    } | changes  # fmt: skip
    return ",".join(columns.values())


BROKEN_SKELETONS = {
    "wrong_column_count": ["", "1,0,0", skeleton_line() + ",7", "a\x01b"],
    "bad_number": [
        skeleton_line(sample_id="x"),
        skeleton_line(count="-1"),
        skeleton_line(sample_id="1" * 19),
    ],
    "bad_label": [skeleton_line(click="2"), skeleton_line(conversion=""), skeleton_line(click="01 ")],
    "conversion_without_click": [skeleton_line(conversion="1")],
    "bad_context_id": [
        skeleton_line(context="ab"),
        skeleton_line(context="g" * 16),
        skeleton_line(context="A" * 16),
    ],
    "empty_id": [skeleton_line(features="205\x02\x031.0")],
    "bad_feature": [
        skeleton_line(features="205"),
        skeleton_line(features="205\x027"),
        skeleton_line(features="205\x02x\x031.0"),
        skeleton_line(features="205\x027\x03-1.0"),
        skeleton_line(features="205\x027\x03nan"),
        *(
            skeleton_line(features=f"205\x027\x03{value}")
            for value in (
                "",
                ".",
                "e5",
                ".e5",
                "1e",
                "1e+",
                "1e5.0",
                "1.0.0",
                "+1",
                "0x1",
                "1_0",
                " 1",
                "inf",
                "1e39",
            )
        ),
        skeleton_line(features="205\x02" + "9" * 30 + "\x031.0"),
        skeleton_line(features=ITEM + "\x01"),
        skeleton_line(features=ITEM + "\r"),
    ],
    "unknown_field": [
        skeleton_line(features="999\x027\x031.0"),
        skeleton_line(features="205_14\x027\x031.0"),
    ],
    "field_on_wrong_side": [skeleton_line(features="101\x027\x031.0")],
    "repeated_single_field": [skeleton_line(features=f"{ITEM}\x01{ITEM}", count="2")],
    "feature_count_mismatch": [
        skeleton_line(count="2"),
        skeleton_line(count="0"),
        skeleton_line(features=""),
        skeleton_line(count="999999999999"),
    ],
}


@pytest.mark.parametrize(
    ("reason", "line"), [(r, line) for r, lines in BROKEN_SKELETONS.items() for line in lines]
)
def test_a_broken_line_is_set_aside_with_its_reason_and_text(reason: str, line: str):
    good = skeleton_line()
    table = parse(f"{good}\n{line}\n{good}\n".encode(), common=False, base=1000)
    unpacker = Unpacker(SCHEMA, 8)
    for batch in table.to_batches():
        list(unpacker.add(batch))
    orphans, broken = sorted(unpacker.take_rejected(), key=lambda lines: lines.texts is not None)
    assert [QUARANTINE_REASONS[code] for code in broken.reasons] == [reason]
    assert broken.texts == [line.encode()]
    assert broken.orders.tolist() == [(3 << packed_rows.OFFSET_BITS) + 1000 + len(good) + 1]
    assert len(orphans.orders) == 2  # the good lines, which have no common record here


def test_broken_common_lines():
    lines = [
        f"{CONTEXT},1",
        f"{CONTEXT},x,{ITEM}",
        f"zz,1,{ITEM}",
        f"{CONTEXT},1,{ITEM}",
        f"{CONTEXT},1,101\x027\x031.0,5",
    ]
    table = parse("".join(line + "\n" for line in lines).encode(), common=True)
    reasons = [QUARANTINE_REASONS[int.from_bytes(blob[:4], "little")] for blob in table["blob"].to_pylist()]
    assert reasons == [
        "wrong_column_count", "bad_number", "bad_context_id", "field_on_wrong_side", "wrong_column_count",
    ]  # fmt: skip


def test_only_an_incomplete_last_line_is_truncated():
    whole, cut = skeleton_line().encode(), skeleton_line()[:-3].encode()
    assert parse(whole, common=False, unterminated=True)["kind"].to_pylist() == [packed_rows.KIND_IMPRESSIONS]
    (blob,) = parse(cut, common=False, unterminated=True)["blob"].to_pylist()
    assert QUARANTINE_REASONS[int.from_bytes(blob[:4], "little")] == "truncated_line"
    table = parse(b"x\n" + whole, common=False, unterminated=True)
    assert table["kind"].to_pylist() == [packed_rows.KIND_IMPRESSIONS, packed_rows.KIND_QUARANTINED]
    blob = table["blob"].to_pylist()[1]
    assert QUARANTINE_REASONS[int.from_bytes(blob[:4], "little")] == "wrong_column_count"


def test_the_kernel_takes_the_fields_from_its_arguments(monkeypatch: pytest.MonkeyPatch):
    """Else its cached machine code would outlive a change of the fields."""
    expected = parse(skeleton_line().encode() + b"\n", common=False)
    codes = text_format.field_of_code(SCHEMA).copy()
    codes[999], codes[205] = codes[205], -1
    monkeypatch.setattr(text_format, "field_of_code", lambda schema: packed_rows.frozen(codes))
    renamed = skeleton_line(features=ITEM.replace("205", "999")).encode() + b"\n"
    assert parse(renamed, common=False).equals(expected)


def value_of(text: str) -> np.float32:
    """What the parser reads as the value of a field with one weighted value."""
    line = skeleton_line(features=f"508\x027\x03{text}")
    (batch,) = parse(line.encode() + b"\n", common=False).to_batches()
    assert batch.column("kind").to_pylist() == [packed_rows.KIND_IMPRESSIONS], text
    names = [field.name for field in IMPRESSION_FIELDS]
    words = np.frombuffer(batch.column("blob")[0].as_py(), np.float32)[packed_rows.IMPRESSION_HEADER :]
    # Before 508 come single values, a word each, and multi-valued fields, of which only the count is there.
    return words[names.index("508") + 1]


@pytest.mark.parametrize(
    "text",
    ["1", "0", "1.", ".5", "1.0E-4", "1e-05", "2E+3", "0.009950330853168092", "1" * 30, "0." + "0" * 60 + "1"]
    + ["1e-400", "3.4028235677973362e38", "1.00000005960464477539", "1.000000059604644775390625"],
)
def test_numbers_of_other_writers_are_read_as_python_reads_them(text: str):
    assert value_of(text) == np.float32(float(text))


@settings(max_examples=300)
@given(
    st.floats(0, 3e38).map(repr)
    | st.floats(0, 2.0**127, width=32).map(lambda x: f"{x:.10f}")
    | st.from_regex(r"\A([0-9]{1,25}\.?[0-9]{0,25}|\.[0-9]{1,25})([eE][+-]?[0-9]{1,2})?\Z").filter(
        lambda text: float(text) < 3e38
    )
)
def test_any_decimal_number_is_read_as_python_reads_it(text: str):
    assert value_of(text) == np.float32(float(text))


@settings(max_examples=300)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_parsed_or_set_aside(text: bytes, common: bool):
    lines = text.split(b"\n")
    table = parse(b"".join(line + b"\n" for line in lines), common=common)
    broken = [
        b for b, kind in zip(table["blob"].to_pylist(), table["kind"].to_pylist(), strict=True) if kind == 2
    ]
    texts = [blob[8 : 8 + int.from_bytes(blob[4:8], "little")] for blob in broken]
    assert texts == lines  # no random text is a valid line


@pytest.mark.parametrize("range_bytes", [97, 5000, 1 << 20])
def test_reading_equals_plain_python_whatever_the_ranges(tmp_path: Path, range_bytes: int):
    logs = random_logs(seed=3, num_contexts=25)
    files = []
    for number, lines in enumerate((logs.common, logs.skeleton)):
        path = tmp_path / f"{number}.csv"
        path.write_text("".join(line + "\n" for line in lines))
        files.append(LogFile(number, str(path), number == 0, path.stat().st_size))
    reader = RawLogReader(
        {
            "files": files_to_json(files),
            "range_bytes": str(range_bytes),
            "hash_seed": "5",
            "schema": json.dumps(SCHEMA.to_dict()),
        }
    )
    batches = [batch for task in reader.partitions() for batch in reader.read(task)]
    order = [("key", "ascending"), ("kind", "ascending"), ("order", "ascending")]
    rows = pa.Table.from_batches(batches).sort_by(order).combine_chunks()
    unpacker = Unpacker(SCHEMA, max_impressions=4)
    out = [table for batch in rows.to_batches(7) for table in unpacker.add(batch)]
    samples = pa.Table.from_batches([*out, *unpacker.finish()])
    samples.validate(full=True)
    found, expected = impressions_of_samples(samples), expected_impressions(logs, BUCKETS, 5)
    assert found.keys() == expected.keys()
    for sample_id, impression in expected.items():
        weights = [w for values in impression["fields"].values() for _, w in values]
        assert [w for v in found[sample_id]["fields"].values() for _, w in v] == pytest.approx(
            weights, rel=1e-6
        )
        for side in (impression, found[sample_id]):
            side["fields"] = {name: [i for i, _ in values] for name, values in side["fields"].items()}
        assert found[sample_id] == impression
