"""The version of this project: manifests, runs and `--version` have it from here."""

VERSION = "0.9.0"
