"""A table larger than memory is refused before it is made."""

from pathlib import Path

import psutil
import pytest
import torch

from cli.errors import InputError
from esmm.config import Config, SparseOptimizerConfig
from esmm.training import memory_check
from esmm.training_run import train
from esmm.workers import control_groups
from esmm.workers.world import World
from tests.fixtures.runs import Inputs
from tests.fixtures.sample_files import TEST_BUCKETS
from tests.fixtures.workers import ONE_WORKER


@pytest.mark.parametrize(("name", "numbers"), [("sgd", 0), ("rowwise_adagrad", 1), ("lazy_adam", 37)])
def test_what_the_optimizer_keeps_of_a_row(name: str, numbers: int) -> None:
    config = SparseOptimizerConfig.model_validate({"name": name})
    assert memory_check.state_numbers_per_row(config, dim=18) == numbers


def test_a_run_with_a_huge_table_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    inputs, rows = Inputs(tmp_path), sum(TEST_BUCKETS.values())
    with pytest.raises(InputError) as caught:
        train(ONE_WORKER, inputs.options(tmp_path / "run", "model.embedding_dim=1000000000"))
    gib = rows * (10**9 + 1) * 4 / 2**30
    assert f"{rows} rows x (1000000000 numbers + 1 of optimizer.sparse) x 4 bytes" in str(caught.value)
    assert f"= {gib:.1f} GiB; available: " in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_workers_share_the_table_but_those_on_one_machine_share_its_memory_too() -> None:
    config, cpu = Config(), torch.device("cpu")
    too_many = int(1.5 * memory_check.room(ONE_WORKER)[0] / (19 * 4))
    for world in (World(1, 0, 0, 1, cpu), World(2, 0, 0, 2, cpu), World(4, 3, 2, 3, cpu)):
        with pytest.raises(InputError, match="does not fit"):
            memory_check.require_room(config, too_many, training=True, world=world)
    for world in (World(2, 0, 0, 1, cpu), World(4, 3, 1, 2, cpu)):
        memory_check.require_room(config, too_many, training=True, world=world)


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), ("memory.max", "memory.current", "")
UNLIMITED = {V1: str(2**63 - 4096), V2: "max"}


def make_group(
    folder: Path, version: tuple[str, str, str], limit: int | None, used: int, files: int = 0, shared: int = 0
) -> None:
    """A control group. files: of its use, pages of files. shared: of its use, shared memory."""
    limit_file, used_file, total = version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_file).write_text(f"{UNLIMITED[version] if limit is None else limit}\n")
    (folder / used_file).write_text(f"{used}\n")
    active = files // 3
    lines = {f"{total}inactive_file": files - active, f"{total}active_file": active, "file": files + shared}
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))


def found(root: Path, own: str) -> dict[str, int]:
    """Free bytes of the limited groups above the process whose /proc/self/cgroup is `own`."""
    groups = control_groups.free_bytes(control_groups.own_group(own), root)
    return {group: free for group, free in groups.items() if free < 2**60}


@pytest.mark.parametrize(("version", "tree"), [(V2, ""), (V1, "memory")])
@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../.."])
def test_pages_of_files_are_no_used_memory_of_a_container(
    tmp_path: Path, version: tuple[str, str, str], tree: str, path: str
) -> None:
    """A container sees its own group as the root, whatever the system outside calls it."""
    own = f"5:cpu,memory:{path}\n0::/\n" if tree else f"0::{path}\n"
    make_group(tmp_path / tree, version, limit=16_000, used=15_000, files=13_000, shared=1_000)
    assert found(tmp_path, own) == {"/": 14_000}
    make_group(tmp_path / tree, version, limit=16_000, used=17_000)  # it may be above for a moment
    assert found(tmp_path, own) == {"/": 0}
    make_group(tmp_path / tree, version, limit=None, used=15_000)
    assert found(tmp_path, own) == {}


@pytest.mark.parametrize(("version", "tree"), [(V2, ""), (V1, "memory")])
def test_the_groups_above_count_too(tmp_path: Path, version: tuple[str, str, str], tree: str) -> None:
    """A batch job's limit is that of its group; its tasks lie below it and have none, or one of their own."""
    path = "/slurm/job_7/step_0/task_1"
    own = f"4:memory:{path}\n2:cpu:/elsewhere\n0::/\n" if tree else f"0::{path}\n"
    for group, limit in {"slurm": None, "slurm/job_7": 9_000, "slurm/job_7/step_0": 8_500}.items():
        make_group(tmp_path / tree / group, version, limit, used=5_000, files=1_000)
    make_group(tmp_path / tree / path[1:], version, None, used=10)
    assert found(tmp_path, own) == {"/slurm/job_7/step_0": 4_500, "/slurm/job_7": 5_000}


def test_a_system_without_control_groups_limits_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, "") == {} and control_groups.own_group("") == "/"


def test_a_limit_is_shared_by_the_workers_that_it_holds_for(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, free = ("/yarn/1", "/yarn/2/a", "/yarn/2/b", "/yarn/22"), {"/yarn/2": 6_000, "/yarn": 20_000}
    monkeypatch.setattr(control_groups, "own_group", lambda: "/yarn/2/b")
    monkeypatch.setattr(control_groups, "free_bytes", lambda group: free)
    world = World(8, 5, 2, 4, torch.device("cpu"), groups=groups)
    assert memory_check.room(world) == (6_000, 2)
    free["/yarn"] = 10_000
    assert memory_check.room(world) == (10_000, 4)
    free.clear()
    assert memory_check.room(world) == (pytest.approx(psutil.virtual_memory().available, rel=0.2), 4)
