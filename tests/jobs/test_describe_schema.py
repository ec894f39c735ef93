"""A schema on the screen: every field in a line, and the memory of the table that training makes of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from esmm.config import SparseOptimizerConfig
from esmm.embedding.optimizers import make_sparse_optimizer
from jobs.describe_schema import describe, state_numbers
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.shop import SHOP_OF_NUMBERS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.describe_schema", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_field_has_a_line_with_its_memory() -> None:
    lines = describe(ALI_CCP, 8).splitlines()
    for field in ALI_CCP.fields:
        (line,) = (line for line in lines if re.match(rf"{field.name} ", line))
        values = f"{'list' if field.multi else 'one'}{', weighted' if field.weighted else ''}"
        words = re.split(r"  +", line)
        assert words[:3] == [field.name, field.side, values]
        assert words[3:] == [f"{field.buckets:,}", f"{field.buckets * 32 / 1e6:,.1f} MB", field.meaning]


def test_numbers_have_a_table_of_their_own() -> None:
    lines = describe(SHOP_OF_NUMBERS, 8).splitlines()
    assert lines[0] == (
        "shop: 2 user fields, 2 of each impression, 3 numbers; user_id customer, item_id product"
    )
    found = {line.split()[0]: re.split(r"  +", line)[1:3] for line in lines if line}
    assert found["age"] == ["user", "x within 0 and 8, standardised"]
    assert found["price"] == ["item", "ln(1 + x), standardised"]
    assert found["stock"] == ["context", "5 quantiles of x"]


@pytest.mark.parametrize("dim", [1, 18])
def test_the_memory_is_that_of_the_table_and_of_the_state_that_training_keeps(dim: int) -> None:
    rows = 6
    small = ALI_CCP.with_buckets(dict.fromkeys(ALI_CCP.index, 1_000_000))
    text = describe(small, dim)
    for name, numbers in state_numbers(dim).items():
        config = SparseOptimizerConfig.model_validate({"name": name})
        state = make_sparse_optimizer(config, 1, rows, dim, torch.device("cpu")).state.values()
        assert sum(tensor.numel() for tensor in state) == rows * numbers
        num_bytes = sum(tensor.nbytes for tensor in (torch.zeros(rows, dim), *state))
        assert re.search(rf"^{name} .* = +{num_bytes * small.num_rows / rows / 1e6:,.1f} MB$", text, re.M)


def test_the_command_without_a_file_describes_the_schema_of_the_code() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == describe(ALI_CCP, 18) + "\n"


def test_mistakes_end_the_command_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("name: shop\nfields: [{name: who, side: usr, buckets: 10}]")
    for arguments, message in (
        ([str(path)], "fields.who.side"),
        ([str(tmp_path / "gone.yaml")], "schema not found"),
        (["--embedding-dim", "0"], "expected at least 1, found 0"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert message in done.stderr and "Traceback" not in done.stderr
