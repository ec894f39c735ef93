"""Cross layers of DCN-V2: Wang et al., WWW 2021 (arXiv 2008.13535), equation 1.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l

Each layer multiplies what it has with the input again, so that l of them hold products of up to l + 1 fields.
"""

import torch
from torch import Tensor, nn

from esmm.model.towers import DenseLayer


class Cross(nn.Module):
    """x_0 [B, n] -> x_L [B, n], n = of_context + of_item: numbers of the halves of an impression's input.

    The first layer's product has a context's half that is the same for all of its impressions.
    """

    def __init__(self, of_context: int, of_item: int, layers: int) -> None:
        super().__init__()
        numbers = of_context + of_item
        self.context = nn.Linear(of_context, numbers)
        self.item = nn.Linear(of_item, numbers, bias=False)
        self.later = nn.ModuleList(DenseLayer(numbers, numbers, relu=False) for _ in range(layers - 1))

    def forward(self, x: Tensor, product: Tensor) -> Tensor:
        """product: W_0 x_0 + b_0, [B, n]."""
        y = torch.addcmul(x, x, product)
        for layer in self.later:
            y = torch.addcmul(y, x, layer(y))
        return y
