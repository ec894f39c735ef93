"""Raw logs of a planted world whose probabilities are known."""
