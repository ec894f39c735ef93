"""Which files a path, glob or folder stands for, and what their first bytes reveal."""

import gzip
import os
import re
import subprocess
import tarfile
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs.raw_logs import files as raw_files
from jobs.raw_logs import packed_rows

CONTEXT = "00000000000000ab"
SKELETON = f"1,0,0,{CONTEXT},1,205\x027\x031.0\n".encode()
COMMON = f"{CONTEXT},1,101\x027\x031.0\n".encode()
PARTS = ("part-00000.csv", "part-2.csv", "part-10.csv.gz")


def write(path: Path, content: bytes) -> Path:
    """The content in a file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def names(files: list[raw_files.LogFile], common: bool) -> list[str]:
    return [file.path.rpartition("/")[2] for file in files if file.common == common]


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """A folder with a folder of part files for each side, as Spark leaves them."""
    folder = tmp_path / "ds=2025-11-22"
    for side, line in (("skeleton", SKELETON), ("common", COMMON)):
        for name in PARTS:
            write(folder / side / name, line)
        write(folder / side / "_SUCCESS", b"")
        write(folder / side / ".part-00000.csv.crc", b"crc")
        write(folder / side / "_temporary" / "0" / "part-00000.csv", b"half a line")
    return folder


def test_a_folder_stands_for_its_part_files_in_natural_order(day: Path):
    files = raw_files.find_logs(f"{day}/skeleton", f"{day}/common/")
    assert names(files, common=True) == list(PARTS)
    assert names(files, common=False) == list(PARTS)
    assert [file.number for file in files] == list(range(6))
    assert [file.common for file in files] == [True] * 3 + [False] * 3
    assert [file.size for file in files] == [
        Path(file.path.removeprefix("file://")).stat().st_size for file in files
    ]


def test_globs_find_folders_and_files_of_several_days(day: Path):
    later = day.parent / "ds=2025-11-23"
    write(later / "skeleton.csv.gz", SKELETON)
    files = raw_files.find_logs([f"{day.parent}/ds=*/skeleton*"], f"{day}/common/part-*")
    assert names(files, common=False) == [*PARTS, "skeleton.csv.gz"]
    assert names(files, common=True) == list(PARTS)


@pytest.mark.parametrize("layout", ["{side}-{part}", "{side}/{part}", "{side}_train/{part}"])
def test_names_tell_the_sides_of_a_folder_that_holds_both(tmp_path: Path, layout: str):
    for side, line in (("sample_skeleton", SKELETON), ("common_features", COMMON)):
        for part in ("1.csv", "2.csv.gz"):
            write(tmp_path / layout.format(side=side, part=part), line)
    write(tmp_path / "truth.csv", b"sample_id,p_ctr\n1,0.5\n")
    files = raw_files.find_logs(str(tmp_path), str(tmp_path))
    assert len(files) == 4
    for file in files:
        assert ("common_features" in file.path) == file.common


def test_both_halves_of_ali_ccp_in_one_folder_are_not_mixed(tmp_path: Path):
    for half in ("train", "test"):
        write(tmp_path / f"sample_skeleton_{half}.csv", SKELETON)
        write(tmp_path / f"common_features_{half}.csv", COMMON)
    with pytest.raises(InputError, match="both common_features_train and common_features_test.*train\\*'"):
        raw_files.find_logs(str(tmp_path), str(tmp_path))
    files = raw_files.find_logs(f"{tmp_path}/sample_skeleton_train*", f"{tmp_path}/common_features_train*")
    assert [len(names(files, common)) for common in (True, False)] == [1, 1]


def test_a_folder_without_one_side_is_refused(tmp_path: Path):
    write(tmp_path / "common_features.csv", COMMON)
    with pytest.raises(InputError, match=r"expected sample_skeleton\* in this folder"):
        raw_files.find_logs(str(tmp_path), str(tmp_path))


def test_a_file_reached_twice_counts_once(day: Path, caplog: pytest.LogCaptureFixture):
    (day / "skeleton" / "part-99.csv").symlink_to(day / "skeleton" / PARTS[0])
    files = raw_files.find_logs([f"{day}/skeleton", f"{day}/skeleton/part-2*"], f"{day}/common")
    assert names(files, common=False) == list(PARTS)
    assert "part-99.csv: left out" in caplog.text


def test_a_file_and_its_compressed_copy_are_refused(day: Path):
    write(day / "skeleton" / "part-2.csv.gz", SKELETON)
    with pytest.raises(InputError, match=r"part-2\.csv: found .*part-2\.csv\.gz too"):
        raw_files.find_logs(f"{day}/skeleton", f"{day}/common")


def test_empty_part_files_are_left_out_with_a_note(day: Path, caplog: pytest.LogCaptureFixture):
    write(day / "common" / "part-00001.csv", b"")
    write(day / "common" / "part-00002.csv.gz", b"")
    files = raw_files.find_logs(f"{day}/skeleton", f"{day}/common")
    assert names(files, common=True) == list(PARTS)
    assert "left out 2 empty files of 5" in caplog.text
    assert "part-00001.csv" in caplog.text


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_side_without_any_line_is_an_error(day: Path, name: str):
    empty = write(day / "empty" / name, b"")
    with pytest.raises(InputError, match="the file is empty"):
        raw_files.find_logs(str(empty), f"{day}/common")
    write(day / "empty" / "y.csv", b"")
    with pytest.raises(InputError, match="all 2 files are empty"):
        raw_files.find_logs(f"{day}/empty", f"{day}/common")


def test_a_link_that_leads_nowhere_is_not_taken_for_an_empty_file(day: Path):
    (day / "skeleton" / "part-99.csv").symlink_to(day / "gone.csv")
    with pytest.raises(InputError, match=r"part-99\.csv: .* a link that leads nowhere"):
        raw_files.find_logs(f"{day}/skeleton", f"{day}/common")


@pytest.mark.parametrize("name", ["day[1]", "what?", "all*"])
def test_a_name_that_looks_like_a_glob_is_taken_at_its_word_first(day: Path, name: str):
    named = day.rename(day.parent / name)
    files = raw_files.find_logs(f"{named}/skeleton", f"{named}/common/part-2.csv")
    assert names(files, common=False) == list(PARTS)
    assert names(files, common=True) == ["part-2.csv"]
    write(day.parent / "day1" / "skeleton" / "part-7.csv", SKELETON)
    assert names(raw_files.find_logs(f"{day.parent}/day[1-9]/*", f"{named}/common"), common=False) == [
        "part-7.csv"
    ]


def test_more_files_than_a_place_can_name_are_refused(day: Path, monkeypatch: pytest.MonkeyPatch):
    last = (raw_files.MAX_FILES - 1 << packed_rows.OFFSET_BITS) + packed_rows.OFFSET_MASK
    assert last == 2**63 - 1, "the place of the last line of the last file is an int64"
    monkeypatch.setattr(raw_files, "MAX_FILES", 6)
    assert len(raw_files.find_logs(f"{day}/skeleton", f"{day}/common")) == 6
    monkeypatch.setattr(raw_files, "MAX_FILES", 5)
    with pytest.raises(InputError, match="expected at most 5 raw files.*found 6.*Join small files"):
        raw_files.find_logs(f"{day}/skeleton", f"{day}/common")


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(day: Path, monkeypatch):
    """Its files would silently be missing from the samples."""
    listing = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    (day / "skeleton" / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        raw_files.find_logs(f"{day}/skeleton", f"{day}/common")


def test_logs_are_found_and_checked_on_any_file_system():
    fs, root = fsspec.filesystem("memory"), uuid.uuid4().hex
    fs.pipe({f"/{root}/s/part-{i}.csv": SKELETON for i in (10, 9)} | {f"/{root}/s/_SUCCESS": b""})
    fs.pipe(f"/{root}/c.csv.gz", gzip.compress(COMMON))
    try:
        files = raw_files.find_logs(f"memory:///{root}/s", f"memory:///{root}/c.csv.gz")
        assert [file.path for file in files] == [
            f"memory:///{root}/{name}" for name in ("c.csv.gz", "s/part-9.csv", "s/part-10.csv")
        ]
        with raw_files.open_log(files[0]) as stream:
            assert stream.read() == COMMON
    finally:
        fs.rm(f"/{root}", recursive=True)


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), path)


def archive(path: Path) -> None:
    inside = write(path.parent / "inside.txt", SKELETON)
    with tarfile.open(path, "w:gz" if path.name.endswith(".gz") else "w") as tar:
        tar.add(inside, "sample_skeleton_train.csv")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (parquet, "x.csv", "a Parquet file"),
        (archive, "x.csv", "a tar archive"),
        (archive, "x.csv.gz", "a tar archive"),
        (lambda path: path.write_bytes(b"PK\x03\x04..."), "x.csv", "a zip archive"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>login"), "x.csv", "an HTML or XML page"),
        (lambda path: path.write_bytes(gzip.compress(SKELETON)), "x.csv", "expected plain text, found gzip"),
        (lambda path: path.write_bytes(SKELETON), "x.csv.gz", "expected gzip data"),
        (lambda path: path.write_bytes(gzip.compress(SKELETON)[:10]), "x.csv.gz", "a damaged one"),
        (lambda path: path.write_bytes(SKELETON), "x.txt", "ends with .csv or .csv.gz"),
    ],
)
def test_another_format_under_the_name_of_a_log_is_named(day: Path, make, name: str, message: str):
    make(day / name)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        raw_files.find_logs(f"{day}/{name}", f"{day}/common")


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (b"\xef\xbb\xbf" + SKELETON * 3, "found a UTF-8 byte-order mark"),
        ((SKELETON * 3).decode().encode("utf-16"), "found UTF-16"),
        ((SKELETON * 3).replace(b"\n", b"\r\n"), r"found \\r\\n"),
        (
            b"sample_id,click,conversion,common_feature_index,feature_num,feature_list\n" + SKELETON * 3,
            "found the header sample_id,click",
        ),
    ],
)
def test_a_spoilt_file_is_named_with_the_command_that_mends_it(
    day: Path, ending: str, spoilt: bytes, message: str
):
    path = write(day / f"spoilt file.{ending}", spoilt)
    with pytest.raises(InputError, match=message) as error:
        raw_files.find_logs(str(path), f"{day}/common")
    assert str(path) in str(error.value)
    command = re.search(r"it: (.*)|them: (.*)", str(error.value))
    assert command
    subprocess.run(["bash", "-ec", command.group(1) or command.group(2)], check=True)
    content = path.read_bytes()
    assert (gzip.decompress(content) if ending == "csv.gz" else content) == SKELETON * 3
    raw_files.find_logs(str(path), f"{day}/common")


def test_swapped_sides_are_named(day: Path):
    with pytest.raises(InputError, match="expected common features, found a sample skeleton"):
        raw_files.find_logs(f"{day}/common", f"{day}/skeleton")
    with pytest.raises(InputError, match="expected a sample skeleton, found common features"):
        raw_files.find_logs(f"{day}/common", f"{day}/common")


@pytest.mark.parametrize(
    "first",
    [
        b"\x00\xff\n",
        b"\n",
        b"no,numbers\x02\n",
        COMMON,  # one line that strayed to the wrong side
        b"1234567890123456,0,1,ab\n",
        b"x" * (raw_files.CHUNK_BYTES >> 4),
    ],
)
def test_single_broken_lines_are_left_to_the_parser(day: Path, first: bytes):
    path = write(day / "x.csv", first + SKELETON * 2)
    files = raw_files.find_logs(str(path), f"{day}/common")
    assert names(files, common=False) == ["x.csv"]


def test_the_first_of_several_wrong_files_is_named_with_their_number(day: Path):
    for name in ("part-3.csv", "part-20.csv", "part-30.csv"):
        write(day / "skeleton" / name, b"\xef\xbb\xbf" + SKELETON)
    with pytest.raises(InputError, match=r"part-3\.csv.*2 more of 6 files are wrong too") as error:
        raw_files.find_logs(f"{day}/skeleton", f"{day}/common")
    assert "\n" not in str(error.value)
