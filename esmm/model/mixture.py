"""Gates over experts, of which MMoE and PLE are made."""

from collections.abc import Sequence

from torch import Tensor, nn

from esmm.model.inputs import Input


class Gates(nn.Module):
    """g_k(x) = softmax(W_k x + b_k) for each of several mixtures. sizes: of the input's halves."""

    def __init__(self, sizes: tuple[int, int], mixtures: int, experts: int) -> None:
        super().__init__()
        self.mixtures = mixtures
        self.context = nn.Linear(sizes[0], mixtures * experts)
        self.item = nn.Linear(sizes[1], mixtures * experts, bias=False)

    def forward(self, x: Input) -> list[Tensor]:
        """The weights of each mixture, [B, experts]."""
        logits = x.layer(self.context, self.item, self.mixtures, False)
        return [weights.softmax(1) for weights in logits]


def mixed(experts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """sum_i g_i e_i: experts [B, H] each, weights [B, experts]."""
    shares = weights.unbind(1)
    total = experts[0] * shares[0].unsqueeze(1)
    for expert, share in zip(experts[1:], shares[1:], strict=True):
        total = total.addcmul(expert, share.unsqueeze(1))
    return total
