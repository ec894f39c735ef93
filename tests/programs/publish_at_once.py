"""Several processes that publish to one folder at the same moment, on any file system."""

import multiprocessing
from multiprocessing.synchronize import Barrier
from typing import Any

from cli.errors import InputError
from storage import publishing
from storage.filesystems import filesystem
from storage.json_files import read_json, write_json

FILES_OF_A_JOB = 4


def publish_at_once(out: str, jobs: int, rounds: int, overwrite: bool) -> list[tuple[set[str], list[str]]]:
    """Per round: the names of the jobs that published, and whose each file in the folder is at the end."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(jobs), context.SimpleQueue()
    options = (out, rounds, overwrite, barrier, results)
    processes = [context.Process(target=_job, args=(f"job-{n}", *options), daemon=True) for n in range(jobs)]
    for process in processes:
        process.start()
    found = [results.get() for _ in range(jobs * rounds + rounds)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    outcome = []
    for turn in range(rounds):
        winners = {name for kind, number, name in found if (kind, number) == ("won", turn)}
        [content] = [content for kind, number, content in found if (kind, number) == ("content", turn)]
        outcome.append((winners, content))
    return outcome


def _job(name: str, out: str, rounds: int, overwrite: bool, barrier: Barrier, results: Any) -> None:
    """In every round: stage files that bear this job's name, publish them when all others do."""
    for turn in range(rounds):
        staging = publishing.staging_name(out)
        for number in range(FILES_OF_A_JOB):
            write_json(f"{staging}/{number}.json", {"job": name})
        barrier.wait(60)
        try:
            publishing.publish(staging, out, overwrite)
            results.put(("won", turn, name))
        except InputError:
            results.put(("lost", turn, name))
        publishing.discard(staging)
        if barrier.wait(60) == 0:
            results.put(("content", turn, _content(out)))
            if turn + 1 < rounds:
                _remove(out)
        barrier.wait(60)


def _remove(out: str) -> None:
    fs, path = filesystem(out)
    fs.rm(path, recursive=True)


def _content(out: str) -> list[str]:
    """The job of every file; a folder within the folder would be a file that cannot be read."""
    fs, path = filesystem(out)
    names = sorted(name.rpartition("/")[2] for name in fs.ls(path, detail=False))
    assert "_SUCCESS" in names
    return [str(read_json(f"{out}/{name}")["job"]) for name in names if name != "_SUCCESS"]
