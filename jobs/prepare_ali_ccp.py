"""The official Ali-CCP archives to samples: unpacked, checked against what is known of them, built.

    make ali-ccp-samples RAW=raw/ali_ccp OUT=samples
    python -m jobs.prepare_ali_ccp --raw raw/ali_ccp --out samples      (the same)

What is unpacked or published already is not done again.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from jobs.ali_ccp_archives.logs import HALVES, ArchiveSource, Half, check_files, find_sources, report, unpack
from jobs.profiling.config import load_profile_config
from jobs.samples_config import SamplesConfig, load_samples_config
from schemas import manifest, schema_file
from schemas.quarantine import QUARANTINE_FOLDER
from schemas.samples import MANIFEST_NAME, fingerprint
from schemas.schema import Schema
from storage import publishing

LOG = logging.getLogger(__name__)

# For the check of free space; shares of the raw bytes measured on demo logs and rounded up.
UNPACKED_SHARE = 5.0  # of an archive; 4.2 by the sizes known of the full data
SAMPLES_SHARE = 0.15
PROFILE_NAME = "_profile.json"  # the underscore keeps Parquet readers of the folder out of it
SHUFFLE_SHARE = 0.8  # of one half, in Spark's local folder: 0.39 shuffled, and as much again to sort it

Loaded = TypeVar("Loaded")


def load_settings(config: str, schema: Schema) -> SamplesConfig:
    """The section `samples`; mistakes that would stop the command only after hours are known at once."""
    settings, mistakes = _load(load_samples_config, config, schema)
    _, of_profile = _load(load_profile_config, config, schema)
    if settings is None or of_profile:
        raise InputError("\n".join(mistakes + of_profile))
    with_table = settings.id_settings(schema).table_fields()
    if with_table:
        raise InputError(
            f"{config}: expected no samples.min_count and no samples.vocabulary, found one for "
            f"{', '.join(with_table)}. They need an id table, which this command does not make: leave them "
            "out, or run jobs.build_ids and jobs.build_samples on the unpacked logs (docs/ids.md)."
        )
    return settings


def _load(
    load: Callable[[str, Schema], Loaded], config: str, schema: Schema
) -> tuple[Loaded | None, list[str]]:
    """A section of the configuration, or what is wrong with it."""
    try:
        return load(config, schema), []
    except InputError as error:
        return None, [str(error)]


def check_same_settings(folder: str, schema: Schema, settings: SamplesConfig, config: str) -> None:
    """Stop where published samples were built with other settings than the configuration has now."""
    made = manifest.read(folder)
    sized = settings.sized(schema)
    built: dict[str, object] = {
        "hash_seed": made["hash_seed"],
        "id table": made.get("id_table", {}).get("path", "none"),
        **{f"buckets.{name}": size for name, size in made["buckets"].items()},
        **made.get("layout", {}),
    }
    wanted = settings.model_dump() | {f"buckets.{name}": size for name, size in sized.buckets.items()}
    wanted["id table"] = "none"
    wrong = [f"{name}: {value}, not {wanted[name]}" for name, value in built.items() if value != wanted[name]]
    if not wrong and made["fingerprint"] != fingerprint(sized, settings.hash_seed):
        wrong.append("another column layout")
    if wrong:
        lines = "".join(f"\n  {text}" for text in wrong)
        raise InputError(
            f"{folder}: these samples were not built with the settings that {config} has now:{lines}\n"
            "Remove the folder to build them again, choose another --out, or take the configuration they "
            "were built with."
        )


def check_labels(out: str, half: Half, allow_differences: bool) -> None:
    """Compare the impressions, clicks and conversions of published samples with what is known."""
    counts = manifest.read(out)["counts"]
    wrong = [
        f"{out}: expected {expected:,} {name}, found {counts[name]:,}"
        for name, expected in half.labels.items()
        if counts[name] != expected
    ]
    advice = f"Look at {out}/{QUARANTINE_FOLDER} and the counts in {out}/{MANIFEST_NAME}"
    report(wrong, "the samples are not those of Ali-CCP as known", advice, allow_differences)


def check_space(raw: Path, out: str, sources: list[ArchiveSource], num_halves_to_build: int) -> None:
    """Stop before any work where the disks can't hold what it will write."""
    plain = sum(s.path.stat().st_size * (UNPACKED_SHARE if s.packed else 1) for s in sources)
    half = plain / len(HALVES)
    needs = [(raw, sum(s.path.stat().st_size * UNPACKED_SHARE for s in sources if s.packed))]
    if num_halves_to_build:
        spark_folder = os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")[0]
        needs.append((Path(spark_folder), SHUFFLE_SHARE * half))
    if "://" not in out:
        needs.append((Path(out), SAMPLES_SHARE * half * num_halves_to_build))
    refuse_full_disks(needs)


def refuse_full_disks(needs: list[tuple[Path, float]]) -> None:
    """Stop where the folders on one disk need more bytes together than are free there."""
    by_disk: dict[int, list[tuple[Path, float]]] = defaultdict(list)
    for folder, num_bytes in needs:
        existing = _existing(folder)
        by_disk[existing.stat().st_dev].append((folder, num_bytes))
    for folders in by_disk.values():
        needed = sum(num_bytes for _, num_bytes in folders)
        free = shutil.disk_usage(_existing(folders[0][0])).free
        if needed > free:
            names = " and ".join(sorted({str(folder) for folder, _ in folders}))
            raise InputError(
                f"{names}: expected {needed / 1e9:.1f} GB of free space, found {free / 1e9:.1f} GB. "
                "Make room or choose other folders (SPARK_LOCAL_DIRS is where Spark sorts)."
            )


def _existing(folder: Path) -> Path:
    """The folder or, until it is made, the nearest one above it."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def build_half(half: str, logs: list[Path], out: str, config: str) -> None:
    """Run jobs.build_samples as users would; its messages are its own."""
    skeleton, common = map(str, logs)
    inputs = ["--skeleton", skeleton, "--common", common]
    code = run_job("build_samples", *inputs, "--out", out, "--config", config)
    if code:
        LOG.error("the samples of the %s half could not be built; run the command again to go on", half)
        sys.exit(code)


def profile(folders: dict[str, str], out: str, config: str, allow_differences: bool) -> None:
    """Profile the test half against the training half; the gates of the configuration decide."""
    inputs = ["--samples", folders["test"], "--against", folders["train"]]
    code = run_job("profile_samples", *inputs, "--out", out, "--config", config)
    if code and not allow_differences:
        LOG.error("the samples stand, but a gate of %s, section profile, is broken", config)
        sys.exit(code)


def run_job(job: str, *arguments: str) -> int:
    """Run one of the project's jobs; its exit code."""
    return subprocess.run([sys.executable, "-m", f"jobs.{job}", *arguments], check=False).returncode


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.prepare_ali_ccp", __doc__)
    parser.add_argument(
        "--raw",
        default="raw/ali_ccp",
        help="folder with sample_train.tar.gz and sample_test.tar.gz, or with the logs unpacked from them "
        "(.csv or .csv.gz); archives are unpacked into it (default %(default)s)",
    )
    parser.add_argument(
        "--out", default="samples", help="folder for split=train and split=test (default %(default)s)"
    )
    parser.add_argument("--config", default="configs/ali_ccp.yaml", help="default %(default)s")
    parser.add_argument(
        "--allow-differences",
        action="store_true",
        help="go on where rows, sizes or labels are not those known of Ali-CCP",
    )
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    schema = schema_file.default()
    settings = load_settings(args.config, schema)
    raw = Path(args.raw)
    out = args.out.rstrip("/")
    folders = {half: f"{out}/split={half}" for half in HALVES}
    todo = [half for half, folder in folders.items() if not publishing.is_complete(folder)]
    for half in folders.keys() - set(todo):
        check_same_settings(folders[half], schema, settings, args.config)
    sources = find_sources(raw)
    check_space(raw, out, sources, len(todo))
    logs = unpack(raw, sources)
    check_files({name: counted for name, (_, counted) in logs.items()}, HALVES, args.allow_differences)
    for half, folder in folders.items():
        if half in todo:
            build_half(half, [logs[name][0] for name in HALVES[half].files], folder, args.config)
        else:
            LOG.info("%s: found published, not built again", folder)
        check_labels(folder, HALVES[half], args.allow_differences)
    profile(folders, f"{out}/{PROFILE_NAME}", args.config, args.allow_differences)
    print(f"samples of Ali-CCP: {' and '.join(folders.values())}, profile: {out}/{PROFILE_NAME}", flush=True)


if __name__ == "__main__":
    exit_with_message(main)
