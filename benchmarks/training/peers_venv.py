"""The environment of the peers: made once, and again when its lock or our torch changes."""

import hashlib
import logging
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

LOG = logging.getLogger("benchmarks.training.peers_venv")
PROJECT = Path(__file__).resolve().parents[2]
LOCK = PROJECT / "requirements/peers.lock"
PIP = ("-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check")


def interpreter(folder: Path) -> Path:
    """The Python of the environment, which is made first where it is missing or out of date."""
    torch = version("torch").partition("+")[0]
    key = f"{torch} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}"
    python = folder / "bin/python"
    stamp = folder / "ready"
    if stamp.exists() and stamp.read_text() == key:
        return python
    LOG.info("making %s (torch is about 200 MB)", folder)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # torch first and without a hash: only plain pip finds the build for this machine.
    subprocess.run([str(python), *PIP, f"torch=={torch}"], check=True)
    subprocess.run([str(python), *PIP, "--require-hashes", "--no-deps", "-r", str(LOCK)], check=True)
    stamp.write_text(key)
    return python
