"""What a cluster needs to run the jobs: dist/jobs.zip (the code) and dist/env.tar.gz (its Python packages).

    make dist        (the same as: .venv/bin/python -m scripts.dist)

jobs.zip goes to `spark-submit --py-files`; configs/spark/yarn.conf and standalone.conf name env.tar.gz.
The packages are those of requirements/jobs.lock and, for s3://, s3.lock: no pyspark, which spark-submit
ships itself, and no torch. The archive links to this machine's Python, which must stand at the same place
on every node.
"""

import argparse
import hashlib
import logging
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from cli.arguments import CommandParser
from cli.log import set_up_logging
from schemas import schema_file

PROJECT = Path(__file__).resolve().parents[1]
LOCKS = (PROJECT / "requirements/jobs.lock", PROJECT / "requirements/s3.lock")
PACKAGES = ("jobs", "schemas", "storage", "cli")
DATA = (schema_file.DEFAULT,)  # what they read of the project beside themselves
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same code is the same bytes

LOG = logging.getLogger(__name__)


def zip_code(target: Path) -> None:
    """Write the modules of `PACKAGES` and `DATA` into a zip that can be put on a Python path."""
    modules = [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (*modules, *(PROJECT / name for name in DATA)):
            entry = zipfile.ZipInfo(str(path.relative_to(PROJECT)), ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    LOG.info("%s: %s, %d kB", target, " and ".join(PACKAGES), target.stat().st_size // 1000)


def environment_key() -> str:
    """Everything that decides what the packed environment holds."""
    parts = (*(lock.read_bytes() for lock in LOCKS), sys.version.encode(), Path(__file__).read_bytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def pack_environment(target: Path, work: Path) -> None:
    """Install the locks into a fresh environment and pack it; nothing to do where that is done already."""
    key = target.with_name(f"{target.name}.key")
    names = " and ".join(lock.name for lock in LOCKS)
    if target.exists() and key.exists() and key.read_text() == environment_key():
        LOG.info("%s: up to date with %s", target, names)
        return
    begin = time.monotonic()
    LOG.info("%s: installing %s, then packing it (about a minute) ...", target, names)
    shutil.rmtree(work, ignore_errors=True)
    _run(sys.executable, "-m", "venv", "--without-pip", str(work))
    locks = [f"-r{lock}" for lock in LOCKS]
    pip = ["install", "--no-input", "--disable-pip-version-check", "-q", "--require-hashes", "--no-deps"]
    _run(sys.executable, "-m", "pip", "--python", str(work / "bin/python"), *pip, *locks)
    packed = target.with_name(f".{target.name.removesuffix('.tar.gz')}.new.tar.gz")
    pack = str(Path(sys.executable).parent / "venv-pack")
    options = ["--quiet", "--force", "--compress-level", "1", "--exclude", "*/tests/*"]
    _run(pack, *options, "-p", str(work), "-o", str(packed))
    packed.rename(target)
    key.write_text(environment_key())
    shutil.rmtree(work)
    megabytes = target.stat().st_size / 1e6
    LOG.info("%s: %s, %.0f MB, %.0f s", target, names, megabytes, time.monotonic() - begin)


def _run(*command: str) -> None:
    """Run a command; its output is shown only where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        LOG.error("%s failed:\n%s", " ".join(command), done.stdout)
        sys.exit(1)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    return CommandParser("scripts.dist", __doc__).parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    parse_arguments()
    set_up_logging()
    folder = PROJECT / "dist"
    folder.mkdir(exist_ok=True)
    zip_code(folder / "jobs.zip")
    pack_environment(folder / "env.tar.gz", PROJECT / "build/dist-env")


if __name__ == "__main__":
    main()
