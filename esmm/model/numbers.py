"""Numeric fields as vectors, beside those that are pooled of ids.

z is a number as `schemas.numbers.Number` bends it. With mean m and deviation s of the training samples

    e = tanh((z - m) / s * w + b)        w, b: learnt [D] of each number; ESM2 (SIGIR 2020, arXiv 1910.07099)
    e = E[k]                             k: which quantile z is in; E: learnt [quantiles, D] of each number

and a learnt vector where there is no value. m, s and the quantiles' bounds are part of the network's state:
whoever loads a checkpoint makes the same of a number as training did.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.numbers import Number, Statistics
from schemas.schema import Schema


class NumberVectors(nn.Module):
    """Numbers of one side, float32 [R, N] with NaN where missing -> [R, N, D].

    parts: `smooth`, of those without quantiles, and `parted`; whichever there are, and in this order.
    """

    low: Tensor
    high: Tensor
    log1p: Tensor

    def __init__(self, numbers: Sequence[Number], dim: int) -> None:
        super().__init__()
        kinds = {"smooth": TanhVectors, "parted": QuantileVectors}
        self.parts = nn.ModuleDict()
        for kind, part in kinds.items():
            places = [i for i, number in enumerate(numbers) if bool(number.quantiles) == (kind == "parted")]
            if places:
                self.parts[kind] = part([numbers[i] for i in places], dim)
                self.register_buffer(f"{kind}_places", torch.tensor(places), persistent=False)
        clips = [number.clip or (-torch.inf, torch.inf) for number in numbers]
        self.register_buffer("low", torch.tensor([low for low, _ in clips]), persistent=False)
        self.register_buffer("high", torch.tensor([high for _, high in clips]), persistent=False)
        log1p = torch.tensor([number.log1p for number in numbers])
        self.register_buffer("log1p", log1p, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.nan_to_num().clamp(self.low, self.high)
        z = torch.where(self.log1p, y.sign() * y.abs().log1p(), y)
        missing = x.isnan()
        vectors = []
        for kind, part in self.parts.items():
            places = self.get_buffer(f"{kind}_places")
            vectors.append(part(z.index_select(1, places), missing.index_select(1, places)))
        return torch.cat(vectors, 1)


class TanhVectors(nn.Module):
    """z [R, N], missing bool [R, N] -> tanh((z - mean) / std * w + b), [R, N, D]."""

    mean: Tensor
    std: Tensor

    def __init__(self, numbers: Sequence[Number], dim: int) -> None:
        super().__init__()
        self.names = [number.name for number in numbers]
        self.weight = nn.Parameter(torch.zeros(len(numbers), dim))
        self.bias = nn.Parameter(torch.zeros(len(numbers), dim))
        self.missing = nn.Parameter(torch.zeros(len(numbers), dim))
        self.register_buffer("mean", torch.zeros(len(numbers)))
        self.register_buffer("std", torch.ones(len(numbers)))

    @torch.no_grad()
    def initialise(self, deviation: float) -> None:
        """torch's default for a linear layer with one input, whatever the deviation of embeddings."""
        for parameter in (self.weight, self.bias):
            parameter.copy_(torch.empty(parameter.shape).uniform_(-1, 1))

    def set_statistics(self, found: Mapping[str, Statistics]) -> None:
        """Numbers that are all the same, or all missing, have no deviation: 1 takes its place."""
        self.mean.copy_(torch.tensor([found[name]["mean"] for name in self.names]))
        self.std.copy_(torch.tensor([found[name]["std"] or 1.0 for name in self.names]))

    def forward(self, z: Tensor, missing: Tensor) -> Tensor:
        standard = (z - self.mean) / self.std
        vectors = torch.tanh(standard.unsqueeze(2) * self.weight + self.bias)
        return torch.where(missing.unsqueeze(2), self.missing, vectors)


class QuantileVectors(nn.Module):
    """z [R, N], missing bool [R, N] -> the vector of the part that z is in, [R, N, D].

    Each number has a vector for each of its parts, and before these one for a missing value.
    """

    bounds: Tensor
    first: Tensor

    def __init__(self, numbers: Sequence[Number], dim: int) -> None:
        super().__init__()
        self.names = [number.name for number in numbers]
        quantiles = [number.quantiles or 0 for number in numbers]
        sizes = torch.tensor(quantiles) + 1
        self.table = nn.Parameter(torch.zeros(int(sizes.sum()), dim))
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("bounds", torch.full((len(numbers), max(quantiles) - 1), torch.inf))

    @torch.no_grad()
    def initialise(self, deviation: float) -> None:
        """As embeddings are: drawn evenly from between minus and plus the deviation."""
        self.table.copy_(torch.empty(self.table.shape).uniform_(-deviation, deviation))

    def set_statistics(self, found: Mapping[str, Statistics]) -> None:
        """Fewer bounds than there is room for leave some parts without values."""
        self.bounds.fill_(torch.inf)
        for place, name in enumerate(self.names):
            bounds = found[name]["bounds"]
            self.bounds[place, : len(bounds)] = torch.tensor(bounds)

    def forward(self, z: Tensor, missing: Tensor) -> Tensor:
        part = torch.searchsorted(self.bounds, z.t().contiguous(), right=True).t()
        return F.embedding(self.first + (part + 1) * ~missing, self.table)


class WithNumbers(nn.Module):
    """Puts the vectors of numbers beside those of ids: `pooled` as the first layer reads it, widened."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.num_fields = {"user": len(schema.user_fields), "impression": len(schema.impression_fields)}
        numbers = {"user": schema.user_numbers, "impression": schema.impression_numbers}
        self.sides = nn.ModuleDict(
            {side: NumberVectors(found, dim) for side, found in numbers.items() if found}
        )

    def initialise(self, deviation: float) -> None:
        """From torch's global generator, on the CPU. deviation: of the vectors of quantiles."""
        for part in self._parts():
            part.initialise(deviation)

    def set_statistics(self, found: Mapping[str, Statistics]) -> None:
        """Of the training samples, by name."""
        for part in self._parts():
            part.set_statistics(found)

    def forward(self, pooled: Tensor, user: Tensor, impression: Tensor) -> Tensor:
        """[U*F_u + B*F_i, D] -> [U*(F_u + N_u) + B*(F_i + N_i), D]. user [U, N_u], impression [B, N_i]."""
        split = user.shape[0] * self.num_fields["user"]
        of_users = self._beside("user", pooled[:split], user)
        return torch.cat([of_users, self._beside("impression", pooled[split:], impression)])

    def _beside(self, side: str, pooled: Tensor, numbers: Tensor) -> Tensor:
        if side not in self.sides:
            return pooled
        of_fields = pooled.view(len(numbers), self.num_fields[side], pooled.shape[1])
        return torch.cat([of_fields, self.sides[side](numbers)], 1).flatten(0, 1)

    def _parts(self) -> list[TanhVectors | QuantileVectors]:
        return [module for module in self.modules() if isinstance(module, TanhVectors | QuantileVectors)]
