"""The wide part: Cheng et al., Wide & Deep, DLRS 2016 (arXiv 1606.07792). A logit gets a weight of each id.

A row of the embedding holds, beside its vector, a number for each tower. What is pooled of them in an
impression's fields is added up: first-order effects that the towers then need not learn.
"""

from torch import Tensor

from esmm.model.layers import split


def first_order(pooled: Tensor, context_index: Tensor, of_context: int, of_item: int) -> Tensor:
    """[B, T], the context's half summed once per context.

    pooled: [U*F_u + B*F_i, T], as the network gets it. of_context, of_item: numbers of fields, F_u and F_i.
    """
    towers = pooled.shape[1]
    context, item = split(pooled, context_index, of_context * towers, of_item * towers)
    of_contexts = context.unflatten(1, (of_context, towers)).sum(1)
    return item.unflatten(1, (of_item, towers)).sum(1) + of_contexts.index_select(0, context_index)
