"""What every model is in training and prediction: batches in, logits out."""

import torch
from torch import Tensor

from esmm.batch import Batch
from esmm.embedding.sharded_table import Lookup, ShardedEmbedding
from esmm.model.network import Network


class Model:
    """A network and the embedding that it reads."""

    def __init__(self, network: Network, embedding: ShardedEmbedding) -> None:
        self.network = network
        self.embedding = embedding

    def forward(
        self,
        batch: Batch,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[tuple[Tensor, ...], Lookup]:
        """The network's logits, each [B], and the lookup; its pooled vectors get the gradient."""
        lookup = self.embedding.lookup(batch.require_request())
        numbers = batch.numbers
        logits = self.network(lookup.pooled.requires_grad_(), batch.context_index, numbers, dtype, generator)
        return logits, lookup
