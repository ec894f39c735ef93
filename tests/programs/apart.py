"""esmm.train by workers that work in folders of their own, as if on hosts with a disk each.

horovodrun -np 2 python -m tests.programs.apart FOLDER ARGUMENTS OF ESMM.TRAIN...

Rank r works in FOLDER/r.
"""

import os
import sys

import esmm.train
from esmm.checkpoints import run_folder

if __name__ == "__main__":
    run_folder.SHARED_SECONDS = 1.0
    os.chdir(f"{sys.argv[1]}/{os.environ['HOROVOD_RANK']}")
    esmm.train.main(sys.argv[2:])
