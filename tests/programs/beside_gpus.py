"""esmm.train on a machine whose torch says that it has two GPUs: used by workers/test_devices.py.

horovodrun -np 2 python -m tests.programs.beside_gpus ARGUMENTS OF ESMM.TRAIN...
"""

import sys

import torch

import esmm.train

if __name__ == "__main__":
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 2
    esmm.train.main(sys.argv[1:])
