"""The demo logs' world of latent vectors: what it draws is bilinear, and can be seen in what it shows."""

import json
from pathlib import Path

import numpy as np
import pytest

from cli.errors import InputError
from jobs import make_demo_logs
from jobs.demo_logs.chunks import Sampler, sigmoid
from jobs.demo_logs.latent import build_latent_world
from jobs.demo_logs.laws import DEPARTMENTS, Array
from jobs.demo_logs.plan import draw_plan
from jobs.demo_logs.world import PlantedWorld
from jobs.make_demo_logs import parse_arguments, read_options
from tests.fixtures.ali_ccp import ALI_CCP

CONTEXTS = 1200


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return build_latent_world(5, CONTEXTS)


@pytest.fixture(scope="module")
def drawn(world: PlantedWorld) -> tuple[Array, Array, Array]:
    """Users [B], items [B] and logits [B, 2] of a thousand contexts, read back from the features."""
    plan = draw_plan(5, 0, CONTEXTS, world)
    segments = plan.segments(0, 1000)
    lines = Sampler(world, plan, 1.0).skeleton(0, 1000, np.zeros(2))
    users = np.repeat(plan.user[segments[:, 0]], segments[:, 2])
    place = ALI_CCP.index["205"]
    features = int(lines.start[-1])
    line = np.repeat(np.arange(len(users)), np.diff(lines.start))
    chosen = lines.field[:features] == place
    items = np.full(len(users), -1)
    items[line[chosen]] = (lines.id[:features][chosen] - world.id_start[place]) // world.id_stride
    known = items >= 0
    return users[known], items[known], lines.labels[known, :2]


def test_logits_are_products_of_vectors_and_the_items_biases(
    world: PlantedWorld, drawn: tuple[Array, Array, Array]
) -> None:
    users, items, logits = drawn
    expected = np.einsum("bk,bkt->bt", world.user_latent[users], world.item_latent[items])
    np.testing.assert_allclose(logits, expected + world.item_effect[items, :2], rtol=1e-12, atol=1e-12)
    assert expected.std(0) == pytest.approx([1.0, 1.0], abs=0.25)


def test_what_fields_say_one_by_one_explains_little(drawn: tuple[Array, Array, Array]) -> None:
    """Means by user and by item are all that an additive model can know of either."""
    users, items, logits = drawn
    left = logits - logits.mean(0)
    for index in (items, users):
        count = np.maximum(np.bincount(index), 1)
        mean = np.stack([np.bincount(index, part) / count for part in left.T], 1)
        left -= mean[index]
    assert (left.var(0) / logits.var(0) > 0.3).all()


def test_histories_show_the_departments_that_a_user_leans_to(world: PlantedWorld) -> None:
    """Users with alike vectors prefer alike departments."""
    liked = np.stack([np.bincount(row % DEPARTMENTS, minlength=DEPARTMENTS) for row in world.user_category])
    liked = liked - liked.mean(0)
    alike = world.user_latent @ world.user_latent.T
    pairs = np.triu_indices(world.num_users, 1)
    assert np.corrcoef(alike[pairs], (liked @ liked.T)[pairs])[0, 1] > 0.3


def test_its_probabilities_leave_much_to_be_learnt(drawn: tuple[Array, Array, Array]) -> None:
    chance = sigmoid(drawn[2][:, 0] - 3.2)
    order = np.argsort(chance)
    below = np.cumsum((1 - chance)[order])
    auc = (chance[order] * below).sum() / chance.sum() / (1 - chance).sum()
    assert 0.72 < auc < 0.85


def test_the_command_draws_it_with_rates_of_its_own(tmp_path: Path) -> None:
    options = read_options(parse_arguments(["--out", "x", "--world", "latent", "--contexts", "20"]))
    assert isinstance(options, make_demo_logs.Options)
    assert (options.ctr, options.cvr, options.world) == (0.05, 0.10, "latent")
    make_demo_logs.make_logs(str(tmp_path / "raw"), options, 1, overwrite=False)
    summary = json.loads((tmp_path / "raw" / "demo_logs.json").read_text())
    assert summary["options"]["world"] == "latent"
    assert summary["splits"]["train"]["contexts"] == 20


def test_the_shop_has_no_other_world() -> None:
    arguments = ["--out", "x", "--schema", "configs/schemas/shop.yaml", "--world", "latent"]
    with pytest.raises(InputError, match="--world latent: expected none"):
        read_options(parse_arguments(arguments))
