"""The profile of samples: counts, figures, gates."""
