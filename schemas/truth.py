"""The truth of demo logs: with which probabilities the labels of each impression were drawn.

    truth_<split>.csv  sample_id,p_ctr,p_cvr

One line of text per impression that is no dirt, below a line with these names. A sample_id that is text may
stand in quotes, and a quote in it is then doubled.
"""

COLUMNS = ("sample_id", "p_ctr", "p_cvr")
HEADER = ",".join(COLUMNS)


def file_name(split: str) -> str:
    """Name of a half's file. split: train or test."""
    return f"truth_{split}.csv"
