"""Cross layers of DCN-V2: Wang et al., WWW 2021 (arXiv 2008.13535), equations 1 and 2.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l       or, of rank r, with W_l = U_l V_l

Each layer multiplies what it has with the input again, so that l of them hold products of up to l + 1 fields.
"""

import torch
from torch import Tensor, nn

from esmm.model.layers import Dense


class Cross(nn.Module):
    """x_0 [B, n] -> x_L [B, n]. rank: None for full matrices."""

    def __init__(self, numbers: int, layers: int, rank: int | None) -> None:
        super().__init__()
        width = rank or numbers
        self.down = nn.ModuleList(nn.Linear(numbers, width, bias=False) for _ in range(layers if rank else 0))
        self.weights = nn.ModuleList(nn.Linear(width, numbers) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for level, layer in enumerate(self.weights):
            z = self.down[level](y) if len(self.down) else y
            y = torch.addcmul(y, x, Dense.apply(z, layer.weight, layer.bias, False))
        return y
