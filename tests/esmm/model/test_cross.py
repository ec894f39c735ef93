"""Cross layers against the paper's equations, element by element, and under the network's own layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from esmm.model.cross import Cross
from esmm.model.esmm import Esmm
from esmm.model_config import ModelConfig
from tests.fixtures.ali_ccp import ALI_CCP, IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.workers import ONE_WORKER

DIM = 4


def test_layers_are_the_paper_s() -> None:
    torch.manual_seed(2)
    cross = Cross(2, 4, 3)
    x = torch.randn(5, 6)
    first = torch.cat([cross.context.weight, cross.item.weight], 1).detach()
    weights = [(first, cross.context.bias), *((layer.weight, layer.bias) for layer in cross.later)]
    expected = []
    for x0 in x.double().numpy():
        y = x0
        for weight, bias in weights:
            y = x0 * (weight.detach().double().numpy() @ y + bias.detach().double().numpy()) + y
        expected.append(y)
    found = cross(x, F.linear(x, first, cross.context.bias))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("input_norm", [False, True])
def test_the_towers_read_what_the_cross_layers_give(input_norm: bool) -> None:
    config = ModelConfig(embedding_dim=DIM, towers=[6], input_norm=input_norm, cross_layers=2)
    torch.manual_seed(3)
    network = Esmm(config, ALI_CCP, ONE_WORKER)
    network.initialise()
    contexts, impressions, index = 3, 7, torch.tensor([0, 0, 1, 1, 1, 2, 2])
    user = torch.randn(contexts, len(USER_FIELDS) * DIM)
    item = torch.randn(impressions, len(IMPRESSION_FIELDS) * DIM)
    ctr, cvr = network(torch.cat([user.view(-1, DIM), item.view(-1, DIM)]), index)
    x = torch.cat([user[index], item], 1)
    if input_norm:
        x = F.layer_norm(x, x.shape[1:])
    cross = network.inputs.cross
    assert cross is not None
    product = F.linear(x, torch.cat([cross.context.weight, cross.item.weight], 1), cross.context.bias)
    x = cross(x, product)
    first = torch.cat([network.context.weight, network.item.weight], 1)
    hidden = F.relu(F.linear(x, first, network.context.bias)).chunk(2, 1)
    for found, h, tower in zip((ctr, cvr), hidden, network.towers, strict=True):
        torch.testing.assert_close(found, tower(h).squeeze(1), rtol=1e-5, atol=1e-6)
