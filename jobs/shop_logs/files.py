"""The shop's logs as files: two tables and the truth of each half."""

import logging
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo_logs.chunks import SPLITS
from jobs.shop_logs.draw import CHUNK, Chunk, Drawing, calibrated
from jobs.shop_logs.tables import contexts_table, impressions_table, truth_lines
from jobs.shop_logs.world import BRANDS, CATEGORIES, TAGS, Shop, build_shop
from schemas import truth
from storage.filesystems import filesystem

LOG = logging.getLogger(__name__)

# Of the tables, below the folder that they are written to.
NAMES = r"(contexts|impressions)_(train|test)(/part-\d{5}\.parquet)?"


def write_shop(
    folder: str, seed: int, contexts: int, list_scale: float, ctr: float, cvr: float, actions: bool = False
) -> dict[str, Any]:
    """Draw both halves into an empty folder; returns the world and the counts per split.

    contexts: sessions of the training half; the test half has half as many. actions: whether impressions
    tell what led to a conversion.
    """
    shop = build_shop(seed, contexts)
    drawing = calibrated(Drawing(shop, seed, list_scale, np.zeros(2)), contexts, ctr, cvr)
    halves = (range(contexts), range(contexts, contexts + contexts // 2))
    counts = {
        SPLITS[split]: _write_half(folder, drawing, split, half, actions) for split, half in enumerate(halves)
    }
    return {"world": _describe(shop), "splits": counts}


def _describe(shop: Shop) -> dict[str, int]:
    kinds = {"categories": CATEGORIES, "brands": BRANDS, "tags": TAGS}
    return {"customers": len(shop.segment), "products": shop.num_products, **kinds}


def _write_half(folder: str, drawing: Drawing, split: int, sessions: range, actions: bool) -> dict[str, int]:
    """The files of a half, a chunk after the other. sessions: their numbers in all of the shop's logs."""
    name = SPLITS[split]
    fs, path = filesystem(folder)
    for table in ("contexts", "impressions"):
        fs.makedirs(f"{path}/{table}_{name}")
    counts: Counter[str] = Counter()
    with fs.open(f"{path}/{truth.file_name(f'_{name}')}", "wb") as stream:
        stream.write(f"{truth.HEADER}\n".encode())
        for number, first in enumerate(sessions[::CHUNK]):
            chunk = drawing.chunk(split, number, min(CHUNK, sessions.stop - first))
            part = f"{name}/part-{number:05d}.parquet"
            contexts = contexts_table(drawing.shop, chunk.sessions, first)
            impressions = impressions_table(drawing.shop, chunk, first, actions)
            counts["contexts_bytes"] += _write(fs, f"{path}/contexts_{part}", contexts)
            counts["impressions_bytes"] += _write(fs, f"{path}/impressions_{part}", impressions)
            stream.write(truth_lines(chunk, first))
            counts.update(_counted(chunk))
    LOG.info("drew %s: %d impressions", name, counts["rows"])
    return dict(counts)


def _write(fs: Any, path: str, table: pa.Table) -> int:
    """Write a file; returns its size."""
    with fs.open(path, "wb") as stream:
        pq.write_table(table, stream, compression="zstd")
        return int(stream.tell())


def _counted(chunk: Chunk) -> dict[str, int]:
    """Clicks and conversions are those of impressions that are no dirt."""
    labels = chunk.labels
    return {
        "contexts": len(chunk.sessions.customer),
        "rows": len(labels.good),
        "valid_rows": int(labels.good.sum()),
        "clicks": int(labels.clicked[labels.good].sum()),
        "conversions": int(labels.bought[labels.good].sum()),
        "dirt_conversion_without_click": int(labels.contradicts.sum()),
        "dirt_without_context": int(labels.lost.sum()),
    }
