"""The configuration: defaults, settings, and all mistakes in one message."""

from pathlib import Path

import pytest

from esmm.config import Config
from schemas.errors import InputError

PROJECT = Path(__file__).parents[2]


def _write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_settings_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = _write(tmp_path, "train: {epochs: 3, seed: 5}\nsamples: {hash_seed: 1}\nloader:\n")
    settings = [
        "train.epochs=7",
        "model.towers=[8, 4]",
        "optimizer.sparse.name=lazy_adam",
        "loader.shuffle_window=0",
    ]
    config = Config.load(path, settings)
    assert (config.train.epochs, config.train.seed, config.train.batch_size) == (7, 5, 1024)
    assert config.model.towers == [8, 4]
    assert config.optimizer.sparse.name == "lazy_adam"
    assert config.loader.shuffle_window == 0


def test_the_written_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = Config.load(_write(tmp_path, ""), ["train.batch_size=96"])
    assert Config.load(_write(tmp_path, config.to_yaml()), []) == config


def test_all_mistakes_come_in_one_message(tmp_path: Path) -> None:
    path = _write(tmp_path, "train: {epochs: 0, colour: red}\nmodel: {towers: []}\noptimizer: 5\n")
    with pytest.raises(InputError) as caught:
        Config.load(path, ["train.batch_size=many", "nonsense", "=3", "model.embedding_dim=[1"])
    message = str(caught.value)
    for part in (
        path, "train.epochs", "train.colour", "red", "model.towers", "optimizer", "train.batch_size", "many",
        "nonsense", "--set =3", "[1",
    ):  # fmt: skip
        assert part in message


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("loaders.shuffle_window=1", "loaders: "),
        ("train=3", "train: "),
        ("train.seed.deep=1", r"train\.seed: "),
    ],
)
def test_a_setting_of_an_unknown_option_is_named(tmp_path: Path, setting: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Config.load(_write(tmp_path, ""), [setting])


def test_the_batch_must_be_dealt_evenly(tmp_path: Path) -> None:
    config = Config.load(_write(tmp_path, ""), ["train.batch_size=1000"])
    assert config.batch_size_per_worker(4) == 250
    with pytest.raises(
        InputError, match=r"multiple of the number of workers \(3\), found 1000.*batch_size=999"
    ):
        config.batch_size_per_worker(3)


@pytest.mark.parametrize("name", ["demo", "ali_ccp"])
def test_the_configurations_of_the_project_are_the_paper_network(name: str) -> None:
    config = Config.load(str(PROJECT / "configs" / f"{name}.yaml"), [])
    assert (config.model.embedding_dim, config.model.towers) == (18, [360, 200, 80])
