"""A `World` that counts what the workers send each other."""

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from esmm.workers.world import Handle, World


@dataclass(frozen=True)
class CountingWorld(World):
    """sent: bytes that this rank has sent to others so far, by name of the collective."""

    sent: Counter[str] = field(default_factory=Counter)

    def start_all_to_all(
        self, rows: Tensor, send_counts: list[int], name: str
    ) -> Handle[tuple[Tensor, list[int]]]:
        to_others = sum(send_counts) - send_counts[self.rank]
        self.sent[name] += to_others * rows[:1].numel() * rows.element_size()
        return super().start_all_to_all(rows, send_counts, name)

    def start_all_reduce(self, tensor: Tensor, name: str) -> Handle[Tensor]:
        # A ring: every part of the tensor passes through all ranks but one, twice.
        self.sent[name] += 2 * (self.size - 1) * tensor.numel() * tensor.element_size() // self.size
        return super().start_all_reduce(tensor, name)
