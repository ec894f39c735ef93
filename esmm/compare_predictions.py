"""Whether two predictions of the same impressions are the same.

    python -m esmm.compare_predictions --predictions again --expected run/predictions

For a smoke test of a promoted model: what it predicts where it is going to be served has to be what it was
judged by. Rows are matched by sample_id, so any number of workers may have written either side.

exit codes:
    0    each probability is within --tolerance of the expected one
    2    some is not, an impression is on one side only, or an input is not there
"""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from schemas.predictions import PROBABILITIES, read_manifest
from storage.filesystems import filesystem

COLUMNS = ("sample_id", *PROBABILITIES)


def read(folder: str) -> pa.Table:
    """Predictions by sample_id."""
    read_manifest(folder)
    fs, path = filesystem(folder)
    return pq.read_table(path, columns=list(COLUMNS), filesystem=fs).sort_by("sample_id")


def largest_difference(found: pa.Table, expected: pa.Table) -> float:
    """Over all rows and probabilities; infinite where they are not of the same impressions.

    Both are sorted by sample_id. An undefined probability differs from any other.
    """
    if not found["sample_id"].equals(expected["sample_id"]):
        return float("inf")
    differences = [
        np.abs(found[name].to_numpy().astype(np.float64) - expected[name].to_numpy())
        for name in PROBABILITIES
        if found.num_rows
    ]
    return max((float(np.nan_to_num(one, nan=np.inf).max()) for one in differences), default=0.0)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("esmm.compare_predictions", __doc__)
    parser.add_argument("--predictions", required=True, metavar="DIR", help="written by esmm.predict")
    parser.add_argument("--expected", required=True, metavar="DIR", help="the same, of before")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of a probability (%(default)g)")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    found, expected = read(args.predictions), read(args.expected)
    largest = largest_difference(found, expected)
    if largest > args.tolerance:
        what = "other impressions" if largest == float("inf") else f"a difference of {largest:.3g}"
        raise InputError(
            f"{args.predictions}: expected the predictions of {args.expected} within {args.tolerance:g}, "
            f"found {what}. Do not serve this model; esmm.registry rollback goes back to the one before."
        )
    print(f"{found.num_rows:,} impressions, largest difference {largest:.3g}")


if __name__ == "__main__":
    exit_with_message(main)
