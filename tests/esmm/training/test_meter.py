"""Mean losses over the impressions that were there."""

import pytest
import torch

from esmm.data.loader import Loader
from esmm.training.meter import Meter
from esmm.training.progress import LogWindow
from tests.fixtures.sample_files import write_samples
from tests.fixtures.workers import ONE_WORKER


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    folder = tmp_path_factory.mktemp("samples") / "s"
    write_samples(folder, num_rows=4, num_files=1)
    return Loader(str(folder), batch_size=8)


def test_steps_count_by_their_impressions(loader: Loader) -> None:
    meter = Meter(ONE_WORKER, loader, LogWindow(), ("ctr", "ctcvr"))
    meter.add(torch.tensor([6.0, 2.0]), 8, 8)
    meter.add(torch.tensor([4.0, 0.5]), 2, 8)  # six of this batch lay in a broken row group
    found = meter.report()
    assert found.skipped_impressions == 6
    assert found.losses == {"ctr": 1.0, "ctcvr": 0.25}
    meter.add(torch.zeros(2), 0, 8)  # all of them
    assert meter.report().losses["ctr"] == 0.0


def test_a_resumed_meter_goes_on(loader: Loader) -> None:
    first = Meter(ONE_WORKER, loader, LogWindow(), ("ctr", "ctcvr"))
    first.add(torch.tensor([6.0, 2.0]), 8, 9)
    window = first.window()
    assert (window.steps, window.impressions, window.skipped) == (1, 8, 1)
    second = Meter(ONE_WORKER, loader, window, ("ctr", "ctcvr"))
    second.add(torch.tensor([4.0, 0.5]), 2, 2)
    assert second.steps == 2
    found = second.report()
    assert (found.losses["ctr"], found.skipped_impressions) == (1.0, 1)
