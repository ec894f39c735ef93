"""The truth of demo logs: with which probabilities the labels of each impression were drawn.

    truth_<split>.csv, of a whole day truth.csv    sample_id,p_ctr,p_cvr

One line of text per impression that is no dirt, below a line with these names. A sample_id that is text may
stand in quotes, and a quote in it is then doubled.
"""

COLUMNS = ("sample_id", "p_ctr", "p_cvr")
HEADER = ",".join(COLUMNS)


def file_name(ending: str) -> str:
    """Name of the file. ending: that of the logs' names, _train or _test for a half, nothing for a day."""
    return f"truth{ending}.csv"
