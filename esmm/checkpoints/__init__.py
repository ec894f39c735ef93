"""What a run leaves and starts from: saving, choosing, resuming, warm start, the run folder."""
