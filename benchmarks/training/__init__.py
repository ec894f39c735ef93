"""Measurements of loader, step and training: `make bench-train`, `make profile`, `make bench-long`."""
