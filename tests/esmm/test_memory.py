"""A table larger than memory is refused before it is made."""

from pathlib import Path

import pytest
import torch

from esmm.config import Config, SparseOptimizerConfig
from esmm.train import train
from esmm.training import memory
from esmm.workers.distributed import World
from schemas.errors import InputError
from tests.esmm.runs import Inputs
from tests.esmm.sample_files import TEST_BUCKETS
from tests.esmm.workers import ONE_WORKER


@pytest.mark.parametrize(("name", "numbers"), [("sgd", 0), ("rowwise_adagrad", 1), ("lazy_adam", 36)])
def test_what_the_optimizer_keeps_of_a_row(name: str, numbers: int) -> None:
    config = SparseOptimizerConfig.model_validate({"name": name})
    assert memory.state_numbers_per_row(config, dim=18) == numbers


def test_a_run_with_a_huge_table_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    inputs, rows = Inputs(tmp_path), sum(TEST_BUCKETS.values())
    with pytest.raises(InputError) as caught:
        train(ONE_WORKER, inputs.arguments(tmp_path / "run", "model.embedding_dim=1000000000"))
    gib = rows * (10**9 + 1) * 4 / 2**30
    assert f"{rows} rows x (1000000000 numbers + 1 of optimizer.sparse) x 4 bytes" in str(caught.value)
    assert f"= {gib:.1f} GiB; available: " in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_workers_share_the_table_but_those_on_one_machine_share_its_memory_too() -> None:
    config, cpu = Config(), torch.device("cpu")
    too_many = int(1.5 * memory.available_bytes() / (19 * 4))
    for world in (World(1, 0, 0, 1, cpu), World(2, 0, 0, 2, cpu), World(4, 3, 2, 3, cpu)):
        with pytest.raises(InputError, match="does not fit"):
            memory.require_room(config, too_many, training=True, world=world)
    for world in (World(2, 0, 0, 1, cpu), World(4, 3, 1, 2, cpu)):
        memory.require_room(config, too_many, training=True, world=world)


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.available_bytes()
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert memory.available_bytes() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() == pytest.approx(machine, rel=0.2)
