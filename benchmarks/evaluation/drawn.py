"""Predictions, drawn: users who differ, contexts of 58 impressions, hardly two scores alike."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import predictions, schema_file
from schemas.samples import MANIFEST_NAME
from storage.json_files import write_json
from storage.publishing import SUCCESS_NAME, is_complete

IMPRESSIONS_PER_USER = 145
IMPRESSIONS_PER_CONTEXT = 58
ROWS_PER_FILE = 2_700_000
ROWS_PER_GROUP = 1 << 17


def predictions_of(folder: Path, rows: int) -> Path:
    """A folder of predictions, drawn once and kept; CTR of about 5 %, CVR of about 12 %."""
    if is_complete(str(folder)):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    num_users = max(2, rows // IMPRESSIONS_PER_USER)
    effects = np.random.default_rng(0).normal(0, 0.5, num_users)
    files = []
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        num = min(ROWS_PER_FILE, rows - first)
        name = f"part-{number:05d}.parquet"
        table = _table(first, num, effects, np.random.default_rng((1, number)))
        pq.write_table(table, folder / name, row_group_size=ROWS_PER_GROUP)
        files.append({"name": name, "rows": num})
    write_json(str(folder / MANIFEST_NAME), {"rows": rows, "files": files, "run": "drawn", "step": 0})
    (folder / SUCCESS_NAME).touch()
    return folder


def _table(first: int, num: int, effects: np.ndarray, rng: np.random.Generator) -> pa.Table:
    contexts = np.arange(first, first + num) // IMPRESSIONS_PER_CONTEXT
    users = contexts * 7919 % len(effects)
    logits = [rng.normal(-3.3, 0.8, num) + effects[users], rng.normal(-2.3, 0.8, num) + effects[users]]
    click = rng.random(num) < _sigmoid(logits[0])
    conversion = click & (rng.random(num) < _sigmoid(logits[1]))
    p_ctr, p_cvr = (_sigmoid(logit + rng.normal(0, 0.5, num)).astype(np.float32) for logit in logits)
    columns = {
        "sample_id": np.arange(first, first + num),
        "context_id": pa.array(contexts).cast(pa.string()),
        "user_id": users,
        "click": click.astype(np.int8),
        "conversion": conversion.astype(np.int8),
        "p_ctr": p_ctr,
        "p_cvr": p_cvr,
        "p_ctcvr": p_ctr * p_cvr,
    }
    return pa.table(columns, schema=predictions.arrow_schema(schema_file.default()))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
