"""The version of this project: manifests, runs and `--version` have it from here."""

VERSION = "0.9.0"
WRITTEN_BY = f"esmm {VERSION}"  # the value of `written_by` in what commands write
