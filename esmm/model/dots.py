"""Dot products of all pairs of an impression's pooled fields, as DLRM has them: Naumov et al., 2019
(arXiv 1906.00091). A first layer reads them beside the fields.

A product of two fields of a context is the same for all of its impressions, and so is what the layer makes of
them: both are computed once per context. With `model.input_norm` the fields are as long as it leaves them.
"""

import torch
from torch import Tensor, nn

from esmm.model.input_norm import moments
from esmm.model.layers import split


class Dots(nn.Module):
    """pooled fields -> what the products add to the first layers, [B, width].

    fields: numbers of fields of a context and of an impression itself. dim: numbers of a field.
    """

    def __init__(self, fields: tuple[int, int], dim: int, width: int, normed: bool) -> None:
        super().__init__()
        of_context, of_item = fields
        self.sizes = of_context * dim, of_item * dim
        self.dim = dim
        self.normed = normed
        self.context = nn.Linear(of_context * (of_context - 1) // 2, width, bias=False)
        self.item = nn.Linear(of_item * (of_item - 1) // 2 + of_item * of_context, width, bias=False)

    def forward(self, pooled: Tensor, context_index: Tensor, dtype: torch.dtype) -> Tensor:
        """pooled: [U*F_u + B*F_i, D]; context_index: int64 [B], ascending. dtype: of the products."""
        halves = split(pooled, context_index, *self.sizes)
        scale = self._scale(*halves, context_index).to(dtype)
        context, item = (half.unflatten(1, (-1, self.dim)).to(dtype) for half in halves)
        across = torch.bmm(item, context.index_select(0, context_index).transpose(1, 2)).flatten(1)
        shared = _pairs(context) @ self.context.weight.to(dtype).t()
        own = torch.cat([_pairs(item), across], 1) @ self.item.weight.to(dtype).t()
        return (own + shared.index_select(0, context_index)) * scale

    def _scale(self, context: Tensor, item: Tensor, context_index: Tensor) -> Tensor:
        """[B, 1] what a product is multiplied with: as in attention, and with the norm, by its variance."""
        if not self.normed:
            return item.new_full((len(item), 1), self.dim**-0.5)
        _, deviation = moments(context, item, context_index)
        return (deviation.square() * self.dim**-0.5).unsqueeze(1)


def _pairs(x: Tensor) -> Tensor:
    """[N, F, D] -> [N, F (F - 1) / 2], the products of different fields."""
    rows, columns = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    return torch.bmm(x, x.transpose(1, 2))[:, rows, columns]
