"""Set-up builds Horovod for GPUs as soon as it can, and says what that takes."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
VERSION = ".venv/lib/python3.11/site-packages/torch/version.py"
TOOLS = ("bash", "cat", "cut", "dirname", "grep", "mkdir", "mv", "paste", "sed", "sh", "sha256sum")
KEY = '"$(horovod_key "$(wanted_horovod)")"'


class Machine:
    """A machine with its own commands and an environment. It has what its methods have given to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name in TOOLS:
            (folder / "bin" / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
        self.torch(None)
        (folder / ".venv/.stamps").mkdir()

    def command(self, name: str, code: int = 0) -> None:
        script = self.folder / "bin" / name
        script.write_text(f"#!/bin/sh\nexit {code}\n")
        script.chmod(0o755)

    def headers(self) -> None:
        (self.folder / "cuda/include").mkdir(parents=True)
        (self.folder / "cuda/include/nccl.h").touch()

    def torch(self, cuda: str | None) -> None:
        version = self.folder / VERSION
        version.parent.mkdir(parents=True, exist_ok=True)
        version.write_text(
            f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
        )

    def tell(self, code: str) -> str:
        """What a piece of setup.sh prints here; the functions of setup.sh without its last lines."""
        text = (SCRIPTS / "setup.sh").read_text()
        functions = text[: text.index("exec 3>&2")]
        assert "readonly venv log" in functions
        functions = functions.replace('cd "$(dirname "${BASH_SOURCE[0]}")/.."', f"cd '{SCRIPTS.parent}'")
        functions = functions.replace("$PWD/.venv", f"{self.folder}/.venv")
        environment = {"PATH": f"{self.folder}/bin", "CUDA_HOME": f"{self.folder}/cuda"}
        line = [shutil.which("bash"), "-c", f"{functions}\n{code}"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


pytestmark = pytest.mark.skipif(
    Path("/usr/include/nccl.h").exists(), reason="NCCL's headers of this machine are always found"
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_horovod_is_built_for(machine: Machine) -> None:
    assert machine.tell("tell_horovod $(horovod_kind)") == "Horovod for the CPU (Gloo)"
    machine.command("nvidia-smi", code=9)  # the command without a GPU
    assert machine.tell("tell_horovod $(horovod_kind)") == "Horovod for the CPU (Gloo)"
    machine.command("nvidia-smi")
    for give, lacking in (
        (lambda: None, "CUDA's compiler (nvcc), NCCL's headers (nccl.h), a torch that was built with CUDA."),
        (lambda: machine.torch("13.0"), "lacks: CUDA's compiler (nvcc), NCCL's headers (nccl.h)."),
        (lambda: machine.command("nvcc"), "lacks: NCCL's headers (nccl.h)."),
    ):
        give()
        assert machine.tell("horovod_kind") == "cpu"
        told = machine.tell("tell_horovod cpu")
        assert "several train on the CPU" in told and lacking in told
        assert "sudo apt-get install -y cuda-toolkit libnccl-dev" in told
    machine.headers()
    assert machine.tell("tell_horovod $(horovod_kind)") == "Horovod for GPUs (NCCL)"


def test_a_tool_chain_that_comes_later_leads_to_a_new_build(machine: Machine) -> None:
    """And one that goes away again leaves what was built."""
    ready = "has_best_horovod && echo ready || echo anew"
    assert machine.tell(ready) == "anew"
    machine.tell(f"stamp horovod {KEY}")
    assert machine.tell(ready) == "ready"
    for name in ("nvidia-smi", "nvcc"):
        machine.command(name)
    machine.headers()
    assert machine.tell(ready) == "ready"  # torch's own build decides too
    machine.torch("13.0")
    assert machine.tell(ready) == "anew"
    assert machine.tell("wanted_horovod") == "gpu"
    machine.tell(f"stamp horovod {KEY}")
    (machine.folder / "bin/nvcc").unlink()
    assert machine.tell(ready) == "ready" and machine.tell("wanted_horovod") == "gpu"
