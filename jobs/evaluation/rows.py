"""Rows of predictions: which are sound, and their keys as 64 bits. Arrow in, numpy out."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from schemas.predictions import LABELS, PROBABILITIES

Hashes = npt.NDArray[np.uint64]

# Of p_ctcvr against p_ctr * p_cvr: what float32 leaves of a product, also of one taken in logarithms.
PRODUCT_TOLERANCE = 1e-5
SMALLEST_PRODUCT = 1e-37  # below it float32 loses digits, or everything

_OF_CONTEXTS = np.uint64(0x9E3779B97F4A7C15)  # keeps a context from being taken for the user of its number


def is_sound(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """[N] whether a row breaks none of the rules by which `inputs` explains a broken one."""
    click, conversion = (_numbers(rows[name], -1) for name in LABELS)
    p_ctr, p_cvr, p_ctcvr = (_numbers(rows[name], np.nan).astype(np.float64) for name in PROBABILITIES)
    product = p_ctr * p_cvr
    sound = np.abs(p_ctcvr - product) <= PRODUCT_TOLERANCE * product + SMALLEST_PRODUCT
    for p in (p_ctr, p_cvr, p_ctcvr):
        sound &= (p >= 0) & (p <= 1)
    sound &= (click == 1) | ((click == 0) & (conversion == 0))
    sound &= (conversion == 0) | (conversion == 1)
    if rows["sample_id"].null_count:
        sound &= rows["sample_id"].is_valid().to_numpy()
    return sound


def _numbers(column: pa.ChunkedArray, missing: float) -> npt.NDArray[np.generic]:
    found: npt.NDArray[np.generic] = (column.fill_null(missing) if column.null_count else column).to_numpy()
    return found


def users_of(rows: pa.Table) -> Hashes:
    """[N] the user of each row; a context without a user is one of its own."""
    column = rows["user_id"]
    if not column.null_count:
        return hashes_of(column)
    present = column.is_valid().to_numpy()
    filled = column.fill_null(0) if pa.types.is_integer(column.type) else column.fill_null("")
    return np.where(present, hashes_of(filled), mixed(hashes_of(rows["context_id"]) ^ _OF_CONTEXTS))


def hashes_of(column: pa.ChunkedArray) -> Hashes:
    """[N] of keys without nulls. No two whole numbers have one hash; of 10^8 texts two with 3 in 10,000."""
    if pa.types.is_integer(column.type):
        return mixed(pc.cast(column, pa.int64()).to_numpy().view(np.uint64))
    return pd.util.hash_array(column.to_numpy(), categorize=False)


def mixed(keys: Hashes) -> Hashes:
    """[N] the finaliser of MurmurHash3 (Appleby 2011), which has an inverse."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        keys = (keys ^ (keys >> np.uint64(33))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(33))
