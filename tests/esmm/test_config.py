"""The configuration: defaults, settings, and all mistakes in one message."""

from pathlib import Path

import pytest

from cli.errors import InputError
from esmm.config import Config

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


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("train.batchsize=1", "batch_size"),
        ("optimizer.dense.learning_rat=1", "learning_rate"),
        ("tracking.mlflow={url: x}", "uri"),
    ],
)
def test_a_mistyped_option_is_told_with_the_nearest_one(tmp_path: Path, setting: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"no such option \(did you mean {meant}\?\), found"):
        Config.load(_write(tmp_path, ""), [setting])


def test_a_mistyped_section_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown section modle \(did you mean model\?\)\. Known: "):
        Config.load(_write(tmp_path, "modle: {}\n"), [])


@pytest.mark.parametrize("name", ["demo", "ali_ccp"])
def test_the_configurations_of_the_project_have_the_network_that_won(name: str) -> None:
    config = Config.load(str(PROJECT / "configs" / f"{name}.yaml"), [])
    assert config.model == Config.load(str(PROJECT / "configs/models/esmm_ns_cross.yaml"), []).model


def test_the_paper_s_network_is_a_preset() -> None:
    model = Config.load(str(PROJECT / "configs/models/esmm.yaml"), []).model
    assert (model.name, model.embedding_dim, model.towers) == ("esmm", 18, [360, 200, 80])
    assert not (model.input_norm or model.cross_layers)


# A file from before these options; a run folder of that time must still predict.
OLD_FILE = """
loader: {shuffle_window: 512}
model: {embedding_dim: 18, embedding_init: 0.05, towers: [360, 200, 80]}
optimizer:
  dense: {name: adam, learning_rate: 0.001}
  sparse: {name: lazy_adam, learning_rate: 0.05}
train: {batch_size: 1024, epochs: 1, seed: 42, log_every: 100, keep_checkpoints: 3}
"""


def test_a_file_without_the_later_options_trains_as_it_did(tmp_path: Path) -> None:
    config = Config.load(_write(tmp_path, OLD_FILE), [])
    assert (config.model.batch_norm, config.model.dropout) == (False, 0)
    assert config.loss.model_dump() == {
        "task_weights": {"ctr": 1, "ctcvr": 1, "cvr": None, "ctavr": None, "auxiliary": None},
        "class_weights": {"click": 1, "conversion": 1},
        "epsilon": 0,
    }
    optimizer = config.optimizer
    assert (optimizer.schedule.warmup_steps, optimizer.schedule.decay, optimizer.clip_grad_norm) == (
        0,
        "none",
        None,
    )
    assert optimizer.dense.weight_decay == optimizer.sparse.weight_decay == optimizer.sparse.l2 == 0
    assert (config.train.precision, config.train.deterministic) == ("fp32", False)
    assert (config.tracking.mlflow, config.tracking.tensorboard) == (None, False)


def test_mlflow_is_on_where_its_section_is_there(tmp_path: Path) -> None:
    config = Config.load(_write(tmp_path, "tracking:\n"), ["tracking.mlflow={}"])
    assert config.tracking.mlflow is not None
    assert (config.tracking.mlflow.uri, config.tracking.mlflow.experiment) == (None, "esmm")
    assert (
        Config.load(_write(tmp_path, ""), ["tracking.mlflow={}", "tracking.mlflow=null"]).tracking.mlflow
        is None
    )


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.dropout=1", r"model\.dropout: .*less than 1, found 1"),
        ("model.batch_norm=sometimes", r"model\.batch_norm: .*boolean.*, found 'sometimes'"),
        ("loss.task_weights={ctr: 0, ctcvr: 0}", r"loss\.task_weights: .*both 0"),
        ("loss.class_weights.click=0", r"loss\.class_weights\.click: .*greater than 0"),
        ("optimizer.schedule.decay=square", r"optimizer\.schedule\.decay: .*'linear'.*found 'square'"),
        ("optimizer.schedule.final_factor=1.5", r"optimizer\.schedule\.final_factor: .*equal to 1"),
        ("optimizer.clip_grad_norm=0", r"optimizer\.clip_grad_norm: .*greater than 0"),
        ("optimizer.sparse.weight_decay=20", r"optimizer\.sparse: .*leaves nothing"),
        ("optimizer.dense.weight_decay=1000", r"optimizer\.dense: .*leaves nothing"),
        (
            "optimizer.sparse.learning_rate=.nan",
            r"optimizer\.sparse\.learning_rate: .*finite number, found nan",
        ),
        ("train.precision=fp16", r"train\.precision: .*'bf16'.*found 'fp16'"),
        ("tracking.mlflow=yes", r"tracking\.mlflow: .*found True"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path: Path, setting: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Config.load(_write(tmp_path, ""), [setting])
