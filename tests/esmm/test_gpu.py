"""What only a GPU can show. Everything else runs on the CPU and is written for both."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esmm.checkpoints.files import newest_checkpoint
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training.divergence import Guard, bad_batch_name, load_batch
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.training_run import train
from esmm.workers.world import AgreedError, World
from tests.fixtures.plain_batches import few_rows, random_batch, to_batch
from tests.fixtures.runs import Inputs, log_of, numbers_of, predictions_of
from tests.fixtures.shop import SHOP_OF_NUMBERS
from tests.fixtures.workers import ONE_WORKER, Command
from tests.programs.spoiled_steps import make_batch, spoil

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and torch sees none")
GPU = World(1, 0, 0, 1, torch.device("cuda", 0))
NUM_ROWS, IMPRESSIONS = 60, 40
SETTINGS = ("train.log_every=3", "train.checkpoint_steps=4", "optimizer.clip_grad_norm=0.5")


def _trained(world: World, **options: Any) -> TrainStep:
    config = Config.model_validate({"model": {"embedding_dim": 4, "towers": [16, 8]}, **options})
    model = make_model(config.model, few_rows(NUM_ROWS), world)
    initialise(model, config)
    return TrainStep(config, model, world)


def test_a_gpu_starts_from_the_numbers_of_the_cpu() -> None:
    on_cpu, on_gpu = _trained(ONE_WORKER), _trained(GPU)
    assert torch.equal(on_gpu.model.embedding.table.cpu(), on_cpu.model.embedding.table)
    for mine, theirs in zip(on_gpu.parameters, on_cpu.parameters, strict=True):
        assert torch.equal(mine.cpu(), theirs)


@pytest.mark.parametrize("sparse", ["rowwise_adagrad", "lazy_adam", "sgd"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_gpu_trains_as_the_cpu_does(sparse: str, batch_norm: bool) -> None:
    options = {
        "model": {"embedding_dim": 4, "towers": [16, 8], "batch_norm": batch_norm},
        "optimizer": {"sparse": {"name": sparse, "l2": 0.01, "weight_decay": 0.01}, "clip_grad_norm": 1.0},
    }
    runs = [_trained(world, **options) for world in (ONE_WORKER, GPU)]
    rng = random.Random(1)
    for _ in range(10):
        batch = to_batch(random_batch(rng, 5, IMPRESSIONS, NUM_ROWS), NUM_ROWS)
        losses = [trained(batch.to(trained.world.device), IMPRESSIONS).cpu() for trained in runs]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)
    tables = [trained.model.embedding.table.cpu() for trained in runs]
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-3, atol=1e-5)


def test_a_step_never_waits_for_the_gpu() -> None:
    trained = _trained(GPU)
    rng = random.Random(1)
    batches = [
        to_batch(random_batch(rng, 5, IMPRESSIONS, NUM_ROWS), NUM_ROWS).to(trained.world.device)
        for _ in range(3)
    ]
    trained(batches[0], IMPRESSIONS)  # the first step allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            trained(batch, IMPRESSIONS)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_numbers_on_a_gpu_are_those_of_the_cpu_and_nothing_waits(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path, SHOP_OF_NUMBERS)
    config = Config.model_validate({"model": {"embedding_dim": 4, "towers": [16, 8]}})
    loader = Loader(str(inputs.train), batch_size=64)
    batches = list(loader.epoch(Position.start(1)))[:3]
    runs = []
    for world in (ONE_WORKER, GPU):
        model = make_model(config.model, SHOP_OF_NUMBERS, world)
        initialise(model, config)
        model.network.set_statistics(loader.manifest["numbers"])
        runs.append(TrainStep(config, model, world))
    on_gpu = [batch.to(GPU.device) for batch in batches]
    torch.testing.assert_close(runs[0](batches[0], 64), runs[1](on_gpu[0], 64).cpu(), rtol=1e-4, atol=1e-4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in on_gpu[1:]:
            runs[1](batch, 64)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_batches_come_in_memory_that_copies_need_not_wait_for(inputs: Inputs) -> None:
    loader = Loader(str(inputs.train), batch_size=32, rank=0, world_size=1, pin_memory=True)
    for batch in loader.epoch(Position.start(1)):
        assert batch.click.is_pinned() and batch.require_request().pooling.ids.is_pinned()
        on_gpu = batch.to(GPU.device)
        torch.cuda.synchronize()
        assert torch.equal(on_gpu.click.cpu(), batch.click)
        assert torch.equal(on_gpu.require_request().pooling.ids.cpu(), batch.require_request().pooling.ids)


def test_the_guard_names_the_step_and_keeps_the_batch_of_the_last_one(tmp_path: Path) -> None:
    trained, fine = _trained(GPU), [make_batch(seed).to(GPU.device) for seed in (1, 2)]
    bad = spoil(make_batch(3)).to(GPU.device)

    def guarded(batches: list[Any]) -> Guard:
        guard = Guard(tmp_path, GPU)
        for step, batch in enumerate(batches, 1):
            losses = trained(batch, IMPRESSIONS)
            guard.watch(step, batch, losses, [trained.gradient, trained.row_squares])
        return guard

    guarded(fine).check()
    with pytest.raises(AgreedError, match="not finite in step 2, on rank 0. Look at the weights"):
        guarded([fine[0], bad]).check()
    kept = load_batch(tmp_path / bad_batch_name(2, rank=0))
    assert torch.equal(kept.impression.weights, bad.impression.weights)
    with pytest.raises(AgreedError, match="not finite in step 1, on rank 0. To have the batch saved"):
        guarded([bad, fine[1]]).check()


@pytest.fixture(scope="module")
def on_cpu(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(inputs, tmp_path_factory.mktemp("runs") / "cpu", "train.device=cpu")


@pytest.fixture(scope="module")
def on_gpu(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(inputs, tmp_path_factory.mktemp("runs") / "gpu", "train.device=cuda")


def _run(inputs: Inputs, folder: Path, *settings: str) -> Path:
    train(ONE_WORKER, inputs.options(folder, *SETTINGS, *settings))
    return folder


def test_a_whole_run_on_a_gpu_follows_that_on_the_cpu(on_cpu: Path, on_gpu: Path) -> None:
    """Trainer, meter, validation, checkpoints."""
    _assert_close_runs(on_gpu, on_cpu)


def _assert_close_runs(found: Path, expected: Path) -> None:
    logs = log_of(found), log_of(expected)
    assert len(logs[0]) == len(logs[1]) > 4
    for mine, theirs in zip(*logs, strict=True):
        assert mine.pop("kind") == theirs.pop("kind")
        assert mine == pytest.approx(theirs, rel=0.01, abs=0.01)
    numbers, others = (numbers_of(newest_checkpoint(run)) for run in (found, expected))
    assert numbers.keys() == others.keys()
    for name, values in numbers.items():
        np.testing.assert_allclose(values, others[name], rtol=0.01, atol=1e-3, err_msg=name)


def test_a_checkpoint_of_a_gpu_predicts_the_same_on_the_cpu(
    on_gpu: Path, inputs: Inputs, tmp_path: Path
) -> None:
    tables = [
        predictions_of(on_gpu, inputs.valid, tmp_path / device, "--device", device)
        for device in ("cuda", "cpu")
    ]
    for name in ("p_ctr", "p_cvr", "p_ctcvr"):
        columns = [np.array(table[name]) for table in tables]
        np.testing.assert_allclose(columns[0], columns[1], rtol=1e-4)


def test_a_run_goes_on_on_the_other_device(on_gpu: Path, inputs: Inputs, tmp_path: Path) -> None:
    """Half of it on the CPU, and the other half on the GPU."""
    run = _run(inputs, tmp_path / "run", "train.device=cpu", "train.epochs=1")
    train(ONE_WORKER, inputs.options(run, *SETTINGS, "train.device=cuda", "--resume"))
    _assert_close_runs(run, on_gpu)


def test_two_workers_with_a_gpu_each_follow_one(
    on_cpu: Path, inputs: Inputs, tmp_path: Path, command: Command
) -> None:
    import horovod.torch as hvd

    if torch.cuda.device_count() < 2 or not hvd.nccl_built():
        pytest.skip("needs two GPUs and a Horovod that was built with NCCL")
    run = tmp_path / "two"
    done = command("-m", "esmm.train", *inputs.arguments(run, *SETTINGS, "train.device=cuda"), workers=2)
    assert done.returncode == 0, done.stderr
    # The loader deals other batches to two workers, so only the end is compared, and loosely.
    ends = [log_of(folder)[-1] for folder in (run, on_cpu)]
    assert ends[0]["step"] == ends[1]["step"]
    assert ends[0]["auc_ctr"] == pytest.approx(ends[1]["auc_ctr"], abs=0.1)


def test_two_workers_of_one_gpu_train_on_the_cpu(inputs: Inputs, tmp_path: Path, command: Command) -> None:
    if torch.cuda.device_count() > 1:
        pytest.skip("needs a machine with a single GPU")
    arguments = inputs.arguments(tmp_path / "run", *SETTINGS, "train.epochs=1")
    done = command("-m", "esmm.train", *arguments, workers=2)
    assert done.returncode == 0, done.stderr
    assert "computing on the CPU though there are GPUs" in done.stdout + done.stderr
