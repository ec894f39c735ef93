"""Collectives of one and of two workers, and what a worker says that cannot join the others."""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from horovod.common.exceptions import HorovodInternalError

from cli.errors import InputError
from esmm.workers import environment, process
from esmm.workers import world as distributed
from esmm.workers.process import EXIT_OTHER_STOPPED, run
from esmm.workers.world import AgreedError, World
from tests.fixtures.workers import ONE_WORKER, PROJECT, Command


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, command: Command) -> list[dict[str, Any]]:
    """What each of two workers has found."""
    folder = tmp_path_factory.mktemp("two")
    done = command("-m", "tests.programs.collectives", folder, workers=2)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_collectives_of_two_workers(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["in_place"]
        assert found["sums"] == [[10, 12, 14, 16], [[3, 3], [3, 3]]]
        assert found["parts"] == [[3], [[2], [2]]]
        assert found["on_rank_zero"] == "by 0"
        assert found["agreed"] == "bad news"
    # Rank 0 sends one row to itself and three to rank 1, which sends two to rank 0.
    assert [found["received"] for found in two] == [[[0], [10], [11]], [[1], [2], [3]]]
    assert [found["counts"] for found in two] == [[1, 2], [3, 0]]
    assert [found["gathered"] for found in two] == [[0, 10, 11], None]


def test_workers_of_one_machine_share_its_cores(two: list[dict[str, Any]]) -> None:
    assert [found["local"] for found in two] == [[0, 2], [1, 2]]
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [found["threads"] for found in two] == [share, share]
    assert {found["timeout"] for found in two} == {str(environment.TIMEOUT_SECONDS)}


def test_one_worker_hears_itself() -> None:
    rows, total = torch.arange(3.0), torch.ones(2)
    received, counts = ONE_WORKER.start_all_to_all(rows, [3], "rows").wait()
    assert received is rows and counts == [3]
    assert ONE_WORKER.start_all_reduce(total, "total").wait() is total
    assert total.tolist() == [1, 1]


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of rank 0 of 2, whose launcher listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = ["HOROVOD_SIZE", "HOROVOD_RANK", "HOROVOD_HOSTNAME", environment.ADDRESS, environment.PORT]
        values = ["2", "0", "localhost", *map(str, server.getsockname())]
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOROVOD_GLOO_TIMEOUT_SECONDS", "120")  # so that it goes when the test is over
        yield monkeypatch


def test_what_the_launcher_should_have_set(launcher: pytest.MonkeyPatch) -> None:
    environment.prepare()
    launcher.delenv(environment.ADDRESS)
    with pytest.raises(
        InputError, match=f"HOROVOD_SIZE=2, but not {environment.ADDRESS}. Start .*`horovodrun"
    ):
        World.start()
    launcher.setenv("HOROVOD_SIZE", "two")
    with pytest.raises(InputError, match="HOROVOD_SIZE: expected a number, found 'two'"):
        World.start()


def test_a_launcher_that_is_gone(launcher: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launcher.setenv(environment.PORT, str(port))
    with pytest.raises(InputError, match=f"can't reach its launcher at 127.0.0.1:{port} .* refused"):
        World.start()


def test_a_host_whose_name_stands_for_itself_only(launcher: pytest.MonkeyPatch) -> None:
    launcher.setattr(socket, "gethostname", lambda: "localhost")
    launcher.setenv("HOROVOD_GLOO_IFACE", "eth0")
    environment.prepare()  # a single host may have any name
    launcher.setenv("HOROVOD_CROSS_SIZE", "2")
    with pytest.raises(InputError, match="worker on localhost: its own name stands for 127.0.0.1"):
        World.start()


def test_what_the_user_has_set_stays(launcher: pytest.MonkeyPatch) -> None:
    launcher.setenv("HOROVOD_GLOO_TIMEOUT_SECONDS", "7")
    environment.prepare()
    assert os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "7"
    launcher.delenv("HOROVOD_GLOO_TIMEOUT_SECONDS")
    environment.prepare()
    assert os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "120"


def test_a_worker_that_waits_says_so(launcher: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    launcher.setattr(environment, "PATIENCE_SECONDS", 0.01)
    with environment.patience():
        while not caplog.messages:
            pass
    assert "rank 0 still waits" in caplog.messages[0]


GONE = "another worker has stopped"
DUPLICATE = "ncclCommInitRank failed: Duplicate GPU detected : rank 1 and rank 0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[/tmp/gloo/transport/tcp/pair.cc:598] Connection closed by peer [127.0.0.1]:38016", GONE),
        ("Horovod has been shut down. This was caused by an exception on one of the ranks ...", GONE),
        ("", GONE),
        (DUPLICATE.replace(": D", ":\n  D"), f"the exchange with the others has failed: {DUPLICATE}"),
    ],
)
def test_what_horovod_says_is_told_unless_a_worker_is_just_gone(
    text: str, told: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "prepare_process", lambda: None)  # it is not this process's own

    def main(world: World) -> None:
        raise HorovodInternalError(text)

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == EXIT_OTHER_STOPPED
    assert caplog.messages == [f"rank 0 stops: {told}"]


def test_only_the_rank_that_is_now_the_first_logs_what_is_no_warning(launcher: pytest.MonkeyPatch) -> None:
    ours, places = logging.getLogger("esmm"), [("host", "/")] * 2
    before = ours.level
    for rank in (0, 1, 0):
        launcher.setattr(distributed, "join", lambda rank=rank: (2, rank, places))
        World.start()
        assert ours.isEnabledFor(logging.INFO) == (rank == 0)
    ours.setLevel(before)


def run_as_rank(rank: int, messages: list[str | None]) -> str:
    """How an elastic worker takes what the ranks have met (None: nothing)."""
    world = replace(ONE_WORKER, size=len(messages), rank=rank, elastic=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "_gathered", lambda *_: messages)
        try:
            with world.qualify():
                if text := messages[rank]:
                    raise InputError(text)
        except (InputError, HorovodInternalError) as error:
            return f"{type(error).__name__}: {error}"
    return "goes on"


def test_elastic_workers_that_cannot_take_part_leave_alone() -> None:
    """Unless none can: then the input is wrong, and one message says so."""
    others = "HorovodInternalError: rank {} cannot take part: no mount"
    table: dict[tuple[str | None, ...], list[str]] = {
        (None, None, None): ["goes on"] * 3,
        (None, None, "no mount"): [others.format(2), others.format(2), "InputError: no mount"],
        ("no mount", None, "full"): ["InputError: no mount", others.format(0), "InputError: full"],
        ("bad", "bad", "bad"): ["AgreedError: bad"] * 3,
    }
    for messages, expected in table.items():
        assert [run_as_rank(rank, list(messages)) for rank in range(3)] == expected


class PassedOverError(AgreedError):
    """One that somebody catches."""


def agreed(rank: int, met: list[InputError | None]) -> AgreedError:
    """What a rank raises where the ranks have met these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "_gathered", lambda *_: [distributed._Met.of(error) for error in met])
        try:
            with replace(ONE_WORKER, size=len(met), rank=rank).agree():
                if own := met[rank]:
                    raise own
        except AgreedError as error:
            return error
    raise AssertionError("nothing was raised")


def test_what_one_rank_meets_all_raise_in_its_class() -> None:
    """But a plain `InputError` of any rank goes first: nobody may go on from what only others pass over."""
    plain, special = InputError("away"), PassedOverError("damaged")
    for met, kind, message in (
        ([None, special], PassedOverError, "damaged"),
        ([None, plain], AgreedError, "away"),
        ([special, plain], AgreedError, "away"),
        ([special, PassedOverError("second")], PassedOverError, "damaged"),
    ):
        for rank in (0, 1):
            raised = agreed(rank, list(met))
            assert (type(raised), str(raised)) == (kind, message)


def test_what_is_no_bad_input_is_not_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others learn of it by the next exchange, which breaks."""
    monkeypatch.setattr(World, "_gathered", lambda *_: pytest.fail("an exchange"))
    with pytest.raises(ZeroDivisionError), ONE_WORKER.agree():
        raise ZeroDivisionError


def test_one_worker_imports_no_horovod() -> None:
    code = "import sys, esmm.train; from esmm.workers.world import World; World.start()"
    code += "; sys.exit(any(name.startswith(('horovod', 'pyspark')) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
