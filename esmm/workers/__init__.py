"""The workers of a run: who they are, what they say to each other."""
