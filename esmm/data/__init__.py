"""Samples on disk to batches in memory: which rank reads what and when, Petastorm, the batch's arrays."""
