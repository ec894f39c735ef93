"""What a run does with a model and batches: steps, optimisers, the log, validation, guards."""
