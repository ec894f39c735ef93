"""Models beside each other, on the same samples with the same seeds."""
