"""The official archives, in small: unpacked whole or not at all, checked, built."""

import errno
import fcntl
import gzip
import io
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cli.errors import InputError
from jobs import build_samples, prepare_ali_ccp
from jobs.ali_ccp_archives import logs as ali_ccp_logs
from jobs.ali_ccp_archives.archives import CopyProgress, Counted, unpack_tar
from jobs.ali_ccp_archives.logs import HALVES, Half, check_files, find_sources, unpack
from jobs.profiling.config import load_profile_config
from jobs.profiling.estimators import collision_rate
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import load_samples_config
from schemas import manifest
from schemas.fields import Field
from schemas.samples import MANIFEST_NAME
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import random_logs, write_logs

NAMES = [name for half in HALVES.values() for name in half.files]
LOGS = {half: random_logs(seed=number, num_contexts=80) for number, half in enumerate(HALVES)}


def log_bytes(name: str) -> bytes:
    logs = LOGS["train" if "train" in name else "test"]
    lines = logs.skeleton if "skeleton" in name else logs.common
    return "".join(line + "\n" for line in lines).encode()


def make_archive(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with both archives, their logs in a folder inside, among other members."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for half in HALVES.values():
        members = [(f"data/{name}", log_bytes(name)) for name in half.files]
        make_archive(folder / half.archive, [("README", b"read me"), *members, ("data/._x.csv", b"x")])
    return folder


def unpacked(folder: Path) -> dict[str, Counted]:
    return {name: counted for name, (_, counted) in unpack(folder, find_sources(folder)).items()}


def expected_counts() -> dict[str, Counted]:
    return {name: Counted(log_bytes(name).count(b"\n"), len(log_bytes(name))) for name in NAMES}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_archives_are_unpacked_and_counted(raw: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert unpacked(raw) == expected_counts()
    for name in NAMES:
        assert (raw / name).read_bytes() == log_bytes(name)
    archives = [half.archive for half in HALVES.values()]
    assert names_in(raw) == sorted([*NAMES, *archives, ali_ccp_logs.RECORD_NAME])
    assert "reading the archives" in caplog.text


def test_a_second_run_reads_only_what_changed(raw: Path):
    unpacked(raw)
    before = {name: (raw / name).stat().st_ino for name in NAMES}
    for half in HALVES.values():
        (raw / half.archive).write_bytes(b"no longer looked at")
    changed = NAMES[1]
    with (raw / changed).open("ab") as stream:
        stream.write(b"one more line\nand a piece")
    expected = expected_counts()
    expected[changed] = Counted(expected[changed].rows + 2, expected[changed].bytes + 25)
    assert unpacked(raw) == expected
    assert {name: (raw / name).stat().st_ino for name in NAMES} == before


def test_after_an_interruption_only_missing_logs_are_unpacked(raw: Path):
    unpacked(raw)
    (raw / NAMES[0]).unlink()
    kept = (raw / NAMES[1]).stat().st_ino
    (raw / f".{NAMES[0]}.partial").write_bytes(b"what a killed run left")
    assert unpacked(raw) == expected_counts()
    assert (raw / NAMES[0]).read_bytes() == log_bytes(NAMES[0])
    assert (raw / NAMES[1]).stat().st_ino == kept
    assert not list(raw.glob(".*.partial"))


def test_unpacked_and_compressed_logs_do_as_well(tmp_path: Path):
    """One of each kind: plain, plain in a folder of its own, compressed, compressed in such a folder."""
    (tmp_path / "sample_test").mkdir()
    (tmp_path / NAMES[0]).write_bytes(log_bytes(NAMES[0]))
    (tmp_path / f"{NAMES[1]}.gz").write_bytes(gzip.compress(log_bytes(NAMES[1])))
    (tmp_path / "sample_test" / NAMES[2]).write_bytes(log_bytes(NAMES[2]))
    (tmp_path / "sample_test" / f"{NAMES[3]}.gz").write_bytes(gzip.compress(log_bytes(NAMES[3])))
    found = unpack(tmp_path, find_sources(tmp_path))
    assert {name: counted for name, (_, counted) in found.items()} == expected_counts()
    for name, (path, _) in found.items():
        assert path.read_bytes() == log_bytes(name)


def test_missing_archives_are_named_with_the_way_to_get_them(raw: Path, tmp_path: Path):
    (raw / "sample_test.tar.gz").unlink()
    with pytest.raises(InputError, match=r"sample_test\.tar\.gz.*https://tianchi") as error:
        find_sources(raw)
    assert "sample_train" not in str(error.value).split(HALVES["test"].archive)[0]
    with pytest.raises(InputError, match="expected a folder.*https://tianchi"):
        find_sources(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[: len(content) // 2], "a damaged one"),
        (lambda content: content[:-6], "a damaged one"),
        (lambda content: content[:-8] + bytes(4) + content[-4:], "a damaged one"),
        (lambda content: content[:500] + bytes(9) + content[509:], "a damaged one"),
        (lambda content: b"<html>Please log in</html>", "a damaged one"),
        (lambda content: gzip.compress(log_bytes(NAMES[0])), "a damaged one"),
        (lambda content: gzip.compress(gzip.decompress(content)[:20_000]), "a damaged one"),
    ],
    ids=["cut", "cut checksum", "wrong checksum", "changed", "no gzip", "no tar", "cut before packing"],
)
def test_of_a_damaged_archive_nothing_is_left(raw: Path, spoil, message: str):
    archive = raw / HALVES["train"].archive
    archive.write_bytes(spoil(archive.read_bytes()))
    before = names_in(raw)
    with pytest.raises(InputError, match=message) as error:
        unpack_tar(archive, set(HALVES["train"].files), raw, CopyProgress(1, "test"))
    assert str(archive) in str(error.value)
    assert names_in(raw) == before


def test_no_member_leads_out_of_the_folder(tmp_path: Path):
    folder = tmp_path / "deep" / "raw"
    folder.mkdir(parents=True)
    skeleton, common = HALVES["train"].files
    outside = tmp_path / "outside.csv"
    archive = folder / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../../outside.csv", str(outside), f"../{skeleton}"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo(common)
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
    with pytest.raises(InputError, match=f"expected {common} in it"):
        unpack_tar(archive, {skeleton, common}, folder, CopyProgress(1, "test"))
    assert names_in(tmp_path) == ["deep"]
    assert names_in(tmp_path / "deep") == ["raw"]
    assert unpack_tar(archive, {skeleton}, folder, CopyProgress(1, "test")) == {skeleton: Counted(1, 4)}
    assert names_in(tmp_path / "deep") == ["raw"]


def test_a_log_that_is_in_the_archive_twice_is_refused(tmp_path: Path):
    name = NAMES[0]
    archive = make_archive(tmp_path / "a.tar.gz", [(f"one/{name}", b"1\n"), (f"two/{name}", b"2\n")])
    with pytest.raises(InputError, match=f"found {name} twice"):
        unpack_tar(archive, {name}, tmp_path, CopyProgress(1, "test"))
    assert names_in(tmp_path) == ["a.tar.gz"]


def test_a_write_that_fails_names_the_file_and_leaves_nothing(raw: Path):
    before = names_in(raw)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            unpack_tar(
                raw / HALVES["train"].archive, set(HALVES["train"].files), raw, CopyProgress(1, "test")
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path(error.value.filename).name in HALVES["train"].files
    assert names_in(raw) == before


def test_two_runs_in_one_folder_do_not_meet(raw: Path):
    with ali_ccp_logs.only_run(raw), pytest.raises(InputError, match="another run"):
        unpacked(raw)
    assert unpacked(raw) == expected_counts()


def test_a_folder_without_locks_is_named(raw: Path, monkeypatch: pytest.MonkeyPatch):
    """As NFS without a lock daemon answers; no such file system is at hand in a test."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(InputError, match=f"{raw}: expected a file system with locks.*No locks available"):
        unpack(raw, find_sources(raw))


@pytest.mark.parametrize(
    ("rows", "num_bytes", "ok"),
    [
        (1000, 2_000_000_000, True),
        (1000, 2_300_000_000, True),
        (1000, 2_500_000_000, False),
        (999, 2_000_000_000, False),
        (1001, 2_000_000_000, False),
    ],
)
def test_rows_must_be_exact_and_sizes_near(caplog, rows: int, num_bytes: int, ok: bool):
    halves = {"x": Half("x.tar.gz", {"x.csv": (1000, 2.0)}, {})}
    found = {"x.csv": Counted(rows, num_bytes)}
    text = f"expected 1,000 rows and about 2.0 GB, found {rows:,} rows and {num_bytes / 1e9:.2f} GB"
    if not ok:
        with pytest.raises(InputError, match=text):
            check_files(found, halves, allow_differences=False)
    caplog.set_level(logging.INFO)
    check_files(found, halves, allow_differences=not ok)
    ((_, level, message),) = caplog.record_tuples  # a warning where it goes on all the same
    assert (text in message, level) == (True, logging.INFO if ok else logging.WARNING)


def test_the_facts_agree_with_each_other():
    """Impressions are the rows without the 230 and 226 that have a conversion and no click."""
    for half, dirt in (("train", 230), ("test", 226)):
        rows, _ = HALVES[half].files[f"sample_skeleton_{half}.csv"]
        assert rows - dirt == HALVES[half].labels["impressions"]


# Distinct ids of the training half, as public projects counted them.
DISTINCT_IDS = {
    "101": 295_787, "121": 97, "122": 13, "124": 2, "125": 7, "126": 3, "127": 3, "128": 2, "129": 4,
    "109_14": 12_223, "110_14": 2_545_609, "127_14": 396_460, "150_14": 99_226,
    "205": 3_206_396, "206": 8_627, "207": 614_739, "210": 98_714, "216": 210_973,
    "508": 7_753, "509": 389_788, "702": 143_919, "853": 86_895, "301": 3,
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_default_buckets_are_at_least_twice_the_ids(field: Field):
    ids = DISTINCT_IDS[field.name]
    assert field.buckets >= 2 * ids
    limit = load_profile_config("configs/ali_ccp.yaml", ALI_CCP).gates.max_collision_rate["any"]
    assert collision_rate(ids, field.buckets - 1) < min(0.34, limit)


def test_the_size_of_the_table_is_told_as_it_is():
    """In the configuration and where the profile's memory is counted, 8 bytes a bucket."""
    rows = load_samples_config("configs/ali_ccp.yaml", ALI_CCP).sized(ALI_CCP).num_rows
    config, profile = Path("configs/ali_ccp.yaml").read_text(), Path("docs/profile.md").read_text()
    assert f"{rows / 1e6:.0f} million rows, {rows * 2 * 12 * 4 / 1e9:.1f} GB of float32" in config
    assert (
        f"the {rows / 1e6:.0f} million buckets of `configs/ali_ccp.yaml` {rows * 8 / 1e6:.0f} MB" in profile
    )


def test_full_disks_are_seen_before_any_work(tmp_path: Path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    prepare_ali_ccp.refuse_full_disks([(tmp_path, free * 0.1), (tmp_path / "not" / "yet", free * 0.1)])
    with pytest.raises(InputError, match=r"expected \d+\.\d GB of free space, found"):
        prepare_ali_ccp.refuse_full_disks([(tmp_path, free * 0.6), (tmp_path / "not" / "yet", free * 0.6)])


def run_command(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.prepare_ali_ccp", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_another_file_than_the_official_one_stops_before_anything_is_built(raw: Path, tmp_path: Path):
    done = run_command("--raw", str(raw), "--out", str(tmp_path / "samples"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("rows and about") == 4  # every file that differs
    assert "expected 42,300,135 rows and about 10.9 GB, found" in done.stderr
    assert "--allow-differences" in done.stderr
    assert not (tmp_path / "samples").exists()


OPTIONS = "samples:\n  impressions_per_row: 9\n  rows_per_row_group: 8\n  buckets: {'301': 50}\n"


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of both halves, built with OPTIONS."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "config.yaml").write_text(OPTIONS)
    settings = load_samples_config(str(folder / "config.yaml"), ALI_CCP)
    for half, logs in LOGS.items():
        files = raw_files.find_logs(*write_logs(folder, logs))
        out = str(folder / f"samples/split={half}")
        build_samples.run(spark, TextLogs(files), ALI_CCP, settings, out, overwrite=False)
    return folder / "samples"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("samples:", "samples:\n  hash_seed: 7"), "hash_seed: 0, not 7"),
        (("'301': 50", "'301': 60, '206': 900"), "buckets.206: 32768, not 900\n  buckets.301: 50, not 60"),
        (("per_row: 9", "per_row: 256"), "impressions_per_row: 9, not 256"),
        (("group: 8", "group: 16"), "rows_per_row_group: 8, not 16"),
    ],
)
def test_samples_of_other_settings_are_not_kept(
    built: Path, tmp_path: Path, changed: tuple[str, str], message: str
):
    config = tmp_path / "config.yaml"
    config.write_text(OPTIONS.replace(*changed))
    settings = prepare_ali_ccp.load_settings(str(config), ALI_CCP)
    with pytest.raises(InputError, match="Remove the folder to build them again") as error:
        prepare_ali_ccp.check_same_settings(str(built / "split=train"), ALI_CCP, settings, str(config))
    assert f"{config} has now:\n  {message}\n" in str(error.value)


def test_samples_of_the_same_settings_are_kept(built: Path, tmp_path: Path):
    """Also those of the first releases, which do not tell the sizes of their rows."""
    folder, config = tmp_path / "samples", tmp_path / "config.yaml"
    shutil.copytree(built / "split=train", folder)
    config.write_text(OPTIONS + "  max_broken_share: 0.5\n")
    settings = prepare_ali_ccp.load_settings(str(config), ALI_CCP)
    prepare_ali_ccp.check_same_settings(str(folder), ALI_CCP, settings, str(config))
    content = json.loads((folder / MANIFEST_NAME).read_text())
    del content["layout"]
    (folder / MANIFEST_NAME).write_text(json.dumps(content))
    prepare_ali_ccp.check_same_settings(str(folder), ALI_CCP, settings, str(config))


def test_the_command_stops_at_samples_of_other_settings_before_any_work(raw: Path, built: Path):
    done = run_command("--raw", str(raw), "--out", str(built), "--allow-differences")
    assert done.returncode == 2
    assert "split=" in done.stderr and "buckets.301: 50, not 4096" in done.stderr
    assert "Traceback" not in done.stderr and not (raw / NAMES[0]).exists()


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("samples: {hash_seed: x}\nprofile: {gates: {ctr: 3}}", ["hash_seed: ", "gates.ctr: "]),
        (
            "samples: {min_count: {'205': 5}, vocabulary: ['125']}",
            ["found one for", "125", "205", "build_ids"],
        ),
    ],
)
def test_what_the_configuration_may_not_have_is_named_at_once(tmp_path: Path, text: str, messages: list[str]):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(InputError) as error:
        prepare_ali_ccp.load_settings(str(config), ALI_CCP)
    assert all(message in str(error.value) for message in messages)


@pytest.mark.slow
@pytest.mark.timeout(900)  # six commands, each of which starts Spark
def test_archives_become_samples_once(raw: Path, tmp_path: Path):
    options = ("--raw", str(raw), "--out", str(tmp_path / "samples"), "--allow-differences")
    done = run_command(*options)
    assert done.returncode == 0, done.stderr
    for half, logs in LOGS.items():
        made = manifest.read(str(tmp_path / "samples" / f"split={half}"))
        assert made["counts"]["impressions"] == len(logs.skeleton)
        assert f"expected {HALVES[half].labels['clicks']:,} clicks" in done.stderr
    assert (tmp_path / "samples" / prepare_ali_ccp.PROFILE_NAME).exists()
    assert "min_impressions" in done.stderr  # a gate for the full data
    again = run_command(*options)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("not built again") == 2
