"""Measurements of raw logs to samples: `make bench-data`."""
