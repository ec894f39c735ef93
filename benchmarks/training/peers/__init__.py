"""The peers of `make bench-train`: each a script for an interpreter of their own, build/peers-venv."""
