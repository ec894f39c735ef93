"""Dropout: its share, its mean, and masks that depend on seed, step and rank alone."""

import itertools
import random

import pytest
import torch

from esmm.config import Config
from esmm.model.dropout import drop_out, step_generator
from esmm.training.train_step import TrainStep, initialise, make_model
from tests.fixtures.plain_batches import few_rows, random_batch, to_batch
from tests.fixtures.workers import ONE_WORKER

CPU = torch.device("cpu")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_the_share_is_dropped_and_the_mean_stays(share: float) -> None:
    x = torch.ones(1000, 503)
    found = drop_out(x, share, step_generator(1, 2, 3, CPU))
    count = x.numel()
    deviation = (share * (1 - share) / count) ** 0.5
    assert (found == 0).sum().item() / count == pytest.approx(share, abs=5 * deviation + 1e-5)
    kept = found[found != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=1e-2, atol=0)
    assert found.mean().item() == pytest.approx(1, abs=5 * deviation / (1 - share) + 1e-6)


def test_the_smallest_remainder_is_not_nothing() -> None:
    assert drop_out(torch.ones(3), 1 - 1e-9, step_generator(1, 2, 3, CPU)).isfinite().all()


def test_masks_repeat_for_the_same_seed_step_and_rank_and_only_then() -> None:
    x = torch.ones(40, 7)
    keys = list(itertools.product((1, 2), (1, 2), (0, 1)))
    masks = [drop_out(x, 0.5, step_generator(*key, CPU)) for key in keys]
    again = [drop_out(x, 0.5, step_generator(*key, CPU)) for key in keys]
    assert all(torch.equal(mask, other) for mask, other in zip(masks, again, strict=True))
    assert len({mask.numpy().tobytes() for mask in masks}) == len(keys)


def test_two_layers_of_one_step_have_different_masks() -> None:
    generator, x = step_generator(1, 2, 3, CPU), torch.ones(40, 7)
    assert not torch.equal(drop_out(x, 0.5, generator), drop_out(x, 0.5, generator))


def test_gradients_pass_where_numbers_did() -> None:
    x = torch.randn(20, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = drop_out(x, 0.25, step_generator(5, 6, 0, CPU))
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), found.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_and_empty_batches(dtype: torch.dtype) -> None:
    generator = step_generator(5, 6, 0, CPU)
    assert drop_out(torch.ones(3, 3, dtype=dtype), 0.25, generator).dtype == dtype
    assert drop_out(torch.ones(0, 3, dtype=dtype), 0.25, generator).shape == (0, 3)


NUM_ROWS, IMPRESSIONS = 60, 30


def _losses(dropout: float, steps: range, frozen: bool = False) -> list[list[float]]:
    """Losses of some steps of a training on one and the same batch; frozen: the model never changes."""
    rates = {"dense": {"learning_rate": 1e-30}, "sparse": {"learning_rate": 1e-30}} if frozen else {}
    config = Config.model_validate(
        {"model": {"embedding_dim": 4, "towers": [16, 8], "dropout": dropout}, "optimizer": rates}
    )
    model = make_model(config.model, few_rows(NUM_ROWS), ONE_WORKER)
    initialise(model, config)
    model.embedding.initialise(config.train.seed, 2.0)
    trained = TrainStep(config, model, ONE_WORKER)
    trained.step = steps.start
    batch = to_batch(random_batch(random.Random(4), 6, IMPRESSIONS, NUM_ROWS), NUM_ROWS)
    return [trained(batch, IMPRESSIONS).tolist() for _ in steps]


def test_every_step_of_a_training_has_masks_of_its_own() -> None:
    assert len({tuple(losses) for losses in _losses(0.5, range(4), frozen=True)}) == 4
    assert len({tuple(losses) for losses in _losses(0.0, range(4), frozen=True)}) == 1


def test_a_training_repeats_and_goes_on_with_the_masks_of_its_step() -> None:
    whole = _losses(0.5, range(6), frozen=True)
    assert _losses(0.5, range(3, 6), frozen=True) == whole[3:]
    assert _losses(0.5, range(6)) == _losses(0.5, range(6))


def test_without_a_generator_nothing_is_dropped() -> None:
    """As in validation and prediction."""
    config = Config.model_validate({"model": {"embedding_dim": 4, "towers": [16, 8], "dropout": 0.5}})
    model = make_model(config.model, few_rows(NUM_ROWS), ONE_WORKER)
    initialise(model, config)
    batch = to_batch(random_batch(random.Random(4), 6, IMPRESSIONS, NUM_ROWS), NUM_ROWS)
    generators = (None, step_generator(1, 1, 0, CPU))
    kept, dropped = (model.forward(batch, generator=generator)[0][0] for generator in generators)
    model.network.dropout = 0.0
    assert torch.equal(kept, model.forward(batch)[0][0])
    assert not torch.equal(kept, dropped)
