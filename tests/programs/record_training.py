"""esmm.train, writing down which impressions each step has trained on: used by workers/test_elastic.py.

    python -m tests.programs.record_training FOLDER ARGUMENTS OF ESMM.TRAIN...

A step waits for as long as there is a file FOLDER/wait-STEP. A worker works in FOLDER/on-HOST where that is
there: relative paths are then those of a host with a disk of its own.
"""

import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import esmm.train
import esmm.training_run
from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.schedule import Position

FOLDER = Path(sys.argv[1])


class RecordingLoader(Loader):
    """Writes FOLDER/PID.jsonl: a line for each batch it hands out for training."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(folder, **{**options, "with_keys": True})

    def epoch(self, position: Position) -> Generator[Batch, None, None]:
        start = sum(leg.steps for leg in position.legs)
        if position.epoch == 0:  # validation
            yield from super().epoch(position)
            return
        for step, batch in enumerate(super().epoch(position), start + 1):
            assert batch.keys is not None
            line = {"start": start, "workers": self.world_size, "rank": self.rank, "step": step}
            with (FOLDER / f"{os.getpid()}.jsonl").open("a") as stream:
                samples = batch.keys["sample_id"].to_pylist()
                stream.write(json.dumps({**line, "samples": samples, "time": time.time()}) + "\n")
            while (FOLDER / f"wait-{step}").exists():
                time.sleep(0.02)
            yield batch


if __name__ == "__main__":
    own_disk = FOLDER / f"on-{os.environ['HOROVOD_HOSTNAME']}"
    if own_disk.is_dir():
        os.chdir(own_disk)
    esmm.training_run.Loader = RecordingLoader  # type: ignore[misc]
    esmm.train.main(sys.argv[2:])
