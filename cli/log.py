"""How every command logs: one line with the time on stderr, libraries only where they warn."""

import logging

OURS = ("cli", "storage", "schemas", "jobs", "esmm", "scripts", "benchmarks")


def set_up_logging(level: int = logging.INFO) -> None:
    """Log our packages and the command itself from a level on, all else from warnings on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in (*OURS, "__main__"):
        logging.getLogger(name).setLevel(level)
