"""ESMM itself: embedding dealt over the workers, pooling, the two towers, the loss."""
