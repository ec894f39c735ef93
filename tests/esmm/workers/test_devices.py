"""The device of each worker: a GPU of its own, or the CPU for all of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli.errors import EXIT_BAD_INPUT, InputError
from esmm.predict import parse_arguments, predict
from esmm.training_run import train
from esmm.workers.devices import Seat, choose
from tests.fixtures.runs import Inputs
from tests.fixtures.workers import ONE_WORKER, Command

PLAIN, ONE, FOUR = Seat("a", "", 0, False), Seat("a", "", 1, True), Seat("a", "", 4, True)
CPU_WHEEL, OTHER_HOST = replace(FOUR, nccl=False), replace(FOUR, host="b")
BOUND = [Seat("a", str(gpu), 1, True) for gpu in range(3)]  # by the launcher, each to another GPU
TABLE: list[tuple[list[Seat], list[str], str]] = [
    ([PLAIN], ["cpu"], "torch sees no GPU on a"),
    ([ONE], ["cuda:0"], ""),
    ([FOUR], ["cuda:0"], ""),
    ([ONE] * 2, ["cpu"] * 2, r"a has 2 workers and 1 GPU\(s\)"),
    ([FOUR] * 3, ["cuda:0", "cuda:1", "cuda:2"], ""),
    ([FOUR] * 5, ["cpu"] * 5, r"a has 5 workers and 4 GPU\(s\)"),
    ([CPU_WHEEL] * 2, ["cpu"] * 2, "Horovod on a was built without NCCL"),
    (BOUND, ["cuda:0"] * 3, ""),
    ([FOUR, OTHER_HOST, FOUR, OTHER_HOST], ["cuda:0", "cuda:0", "cuda:1", "cuda:1"], ""),
    # One worker without a GPU keeps the others on the CPU: all ranks exchange tensors of the same kind.
    ([FOUR, Seat("b", "", 0, True)], ["cpu"] * 2, "torch sees no GPU on b"),
    ([FOUR, replace(OTHER_HOST, nccl=False)], ["cpu"] * 2, "Horovod on b"),
    ([FOUR, *[replace(ONE, host="b")] * 2], ["cpu"] * 3, r"b has 2 workers and 1 GPU\(s\)"),
]


@pytest.mark.parametrize(("seats", "devices", "hindrance"), TABLE)
def test_which_devices_the_workers_of_a_world_take(
    seats: list[Seat], devices: list[str], hindrance: str
) -> None:
    ranks = range(len(seats))
    found = [choose("auto", rank, seats) for rank in ranks]
    assert [str(device) for device, _ in found] == devices
    told = bool(hindrance) and any(seat.gpus for seat in seats)  # no GPU anywhere is nothing to tell
    assert {bool(why) for _, why in found} == {told}
    assert [choose("cpu", rank, seats) for rank in ranks] == [(torch.device("cpu"), "") for _ in ranks]
    refusals = [text for text in (_refusal(rank, seats) for rank in ranks) if text]
    assert bool(refusals) == bool(hindrance)
    for text in refusals:
        assert re.search(f"train.device: cuda: expected a GPU for each worker, but {hindrance}", text)


def _refusal(rank: int, seats: list[Seat]) -> str:
    """What a rank says where it shall have a GPU. Those whose host has enough of them say nothing."""
    try:
        device, _ = choose("cuda", rank, seats)
    except InputError as error:
        return str(error)
    assert device.type == "cuda"
    return ""


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_two_workers_beside_gpus_that_horovod_cannot_use(
    inputs: Inputs, tmp_path: Path, command: Command, device: str
) -> None:
    import horovod.torch as hvd

    if hvd.nccl_built():
        pytest.skip("Horovod was built with NCCL here, and can use them")
    arguments = inputs.arguments(tmp_path / "run", "train.epochs=1", f"train.device={device}")
    done = command("-m", "tests.programs.beside_gpus", *arguments, workers=2)
    output = done.stdout + done.stderr
    if device == "auto":
        assert done.returncode == 0, output
        assert output.count("computing on the CPU though there are GPUs: Horovod on") == 1
        assert (tmp_path / "run" / "_SUCCESS").exists()
    else:
        assert output.count("error: train.device: cuda: expected a GPU for each worker, but Horovod on") == 1
        assert f"Exit code: {EXIT_BAD_INPUT}" in output
        assert not (tmp_path / "run").exists()


def test_prediction_follows_the_run_or_its_own_option(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = tmp_path / "run"
    train(ONE_WORKER, inputs.options(run, "train.epochs=1", "train.device=cpu"))
    text = (run / "config.yaml").read_text()
    assert "device: cpu" in text
    (run / "config.yaml").write_text(text.replace("device: cpu", "device: cuda"))  # trained elsewhere
    options = ["--run", str(run), "--samples", str(inputs.valid), "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"torch sees no GPU on .*--device cpu"):
        predict(ONE_WORKER, parse_arguments(options))
    predict(ONE_WORKER, parse_arguments([*options, "--device", "cpu"]))
