"""ESMM in PyTorch: loader, sharded embeddings, model, trainer, predictor."""
