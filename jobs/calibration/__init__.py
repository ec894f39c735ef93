"""Lines that mend the probabilities of predictions."""
