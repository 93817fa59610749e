"""Weights out of Lightning's checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deqzoo import create_model, load
from deqzoo.errors import WeightsError
from deqzoo.zoo.checkpoint import read_checkpoint
from deqzoo.zoo.run_log import read_run


def write_run(folder: Path, net: Any, *, config: bool = True, **extra: Any) -> Path:
    """Writes what `deqzoo fit` leaves: last.ckpt and, in version_0, settings and log."""
    version = folder / "version_0"
    version.mkdir(parents=True)
    if config:
        make = {"class_path": "deqzoo.create_model", "init_args": {"name": "Zoo_Probe", "num_classes": 10}}
        settings = {
            "seed_everything": 0,
            "model": {"class_path": "deqzoo.tasks.ImageClassifier", "init_args": {"net": make}},
            "trainer": {"max_epochs": 2},
        }
        (version / "config.yaml").write_text(yaml.safe_dump(settings))
    (version / "metrics.csv").write_text("epoch,step,train/loss,train/top1\n0,49,2.0,\n0,99,,0.5\n1,149,1.0,\n")
    state = {f"net.{k}": v for k, v in net.state_dict().items()}
    content = {"state_dict": state, "epoch": 1, "global_step": 200, **extra}
    torch.save(content, folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_checkpoint_is_named_by_the_settings_of_its_run(net: Any, tmp_path: Path):
    path = write_run(tmp_path / "run", net)
    for source in (path, tmp_path / "run", str(path)):
        model: Any = load(source)
        assert torch.equal(model.net.fc.weight, net.fc.weight)
    found = read_checkpoint(path)
    assert (found.name, found.epochs, found.steps) == ("Zoo_Probe", 2, 200)


def test_settings_may_lie_beside_or_above_the_checkpoint(net: Any, tmp_path: Path):
    path = write_run(tmp_path / "run", net)
    settings = (tmp_path / "run/version_0/config.yaml").rename(tmp_path / "run/config.yaml")
    assert read_checkpoint(path).name == "Zoo_Probe"
    settings.rename(tmp_path / "config.yaml")
    assert read_checkpoint(path).name == "Zoo_Probe"
    assert len(read_checkpoint(path).log.rows) == 3


def test_a_checkpoint_is_named_by_its_own_hyperparameters(net: Any, tmp_path: Path):
    made = {"net": {"class_path": "deqzoo.zoo.loading.create_model", "init_args": {"name": "zoo-probe"}}}
    path = write_run(tmp_path, net, config=False, hyper_parameters=made)
    assert read_checkpoint(path).name == "zoo-probe"


def test_the_sizes_of_the_run_are_kept(tmp_path: Path):
    net = create_model("zoo-probe", num_classes=3, in_chans=3)
    made = {
        "class_path": "deqzoo.create_model",
        "init_args": {"name": "zoo-probe", "num_classes": 3, "in_chans": 3},
    }
    model: Any = load(write_run(tmp_path, net, config=False, hyper_parameters={"net": made}))
    assert (model.net.num_classes, model.net.in_chans) == (3, 3)
    assert model.net.pretrained_cfg["input_size"] == [3, 28, 28]


def test_a_checkpoint_without_a_name_says_what_to_do(net: Any, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"does not say which model.*no config.yaml.*Keep the run's folder"):
        load(write_run(tmp_path, net, config=False))


def test_damaged_and_foreign_checkpoints_are_refused(net: Any, tmp_path: Path):
    path = write_run(tmp_path, net)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match=r"is no complete checkpoint"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"is no complete checkpoint"):
        load(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"has no network in it"):
        load(path)
    torch.save({"state_dict": {"net.x": torch.zeros(1)}, "code": Path}, path)
    with pytest.raises(WeightsError, match=r"could not be read as plain data"):
        load(path)


WRONG_PARTS = [
    ({"state_dict": [1]}, r"has no network in it"),
    ({"state_dict": "net."}, r"has no network in it"),
    ({"state_dict": {3: torch.zeros(1)}}, r"has no network in it"),
    ({"state_dict": {"net.x": 3}}, r"has no network in it"),
    ({"state_dict": {"net.x": torch.zeros(1)}}, r"do not fit PcDEQ"),
    ({"epoch": "last"}, r"epoch is 'last'\. It should be a whole number"),
    ({"epoch": None}, r"epoch is None"),
    ({"global_step": [200]}, r"global_step is \[200\]"),
    ({"loops": {"fit_loop": {"epoch_progress": {"total": {"processed": "two"}}}}}, r"epochs is 'two'"),
]


@pytest.mark.parametrize(("parts", "told"), WRONG_PARTS, ids=str)
def test_parts_of_another_kind_are_refused(net: Any, tmp_path: Path, parts: dict[str, Any], told: str):
    with pytest.raises(WeightsError, match=told):
        load(write_run(tmp_path, net, **parts))


@pytest.mark.parametrize("loops", [[1], None, {"fit_loop": [1]}, {"fit_loop": {"epoch_progress": 3}}], ids=str)
def test_epochs_are_counted_without_loops_too(net: Any, tmp_path: Path, loops: Any):
    assert read_checkpoint(write_run(tmp_path, net, loops=loops)).epochs == 2


def test_impossible_sizes_of_a_run_are_refused(net: Any, tmp_path: Path):
    for number, (key, value) in enumerate([("num_classes", "ten"), ("num_classes", 10**12), ("in_chans", 10**9)]):
        made = {"class_path": "deqzoo.create_model", "init_args": {"name": "zoo-probe", key: value}}
        path = write_run(tmp_path / str(number), net, config=False, hyper_parameters={"net": made})
        with pytest.raises(WeightsError, match=rf"last\.ckpt is damaged: {key} is .*It should be a whole number"):
            load(path)


def test_hyperparameters_may_hold_themselves(net: Any, tmp_path: Path):
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WeightsError, match=r"does not say which model"):
        load(write_run(tmp_path, net, config=False, hyper_parameters=loop))


def test_a_damaged_configuration_is_named_and_half_a_line_of_the_log_is_left_out(net: Any, tmp_path: Path):
    path = write_run(tmp_path, net)
    log = tmp_path / "version_0/metrics.csv"
    log.write_text(log.read_text() + "2,199,1e-\n2,,3,4,5,6\n")
    assert read_checkpoint(path).log.curve("train/loss") == [(49, 2.0), (149, 1.0)]
    (tmp_path / "version_0/config.yaml").write_text("model: [unclosed")
    with pytest.raises(WeightsError, match=r"config\.yaml is damaged: .*It should be the YAML that `deqzoo fit` wrote"):
        load(path)


def test_a_folder_with_several_checkpoints_asks_which(net: Any, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"holds no weights"):
        load(tmp_path)
    write_run(tmp_path / "a", net)
    write_run(tmp_path / "b", net)
    with pytest.raises(WeightsError, match=r"holds 2 checkpoints \(a/last.ckpt, b/last.ckpt"):
        load(tmp_path)


def test_the_log_of_a_resumed_run_is_one_log(net: Any, tmp_path: Path):
    path = write_run(tmp_path, net)
    for number in (2, 10):  # 10 comes after 2
        later = tmp_path / f"version_{number}"
        later.mkdir()
        settings = yaml.safe_load((tmp_path / "version_0/config.yaml").read_text()) | {"seed_everything": number}
        (later / "config.yaml").write_text(yaml.safe_dump(settings))
        (later / "metrics.csv").write_text(f"epoch,step,train/loss\n1,149,0.{number}\n{number},{number}00,0.1\n")
    tested = tmp_path / "version_11"
    tested.mkdir()
    (tested / "config.yaml").write_text("{}")
    (tested / "metrics.csv").write_text("epoch,step,test/top1\n1,149,0.99\n")
    log = read_run(path)
    assert log.curve("train/loss") == [(49, 2.0), (149, 0.10), (200, 0.1), (1000, 0.1)]
    assert log.curve("train/top1") == [(99, 0.5)]
    assert log.curve("test/top1") == []
    assert log.config["seed_everything"] == 10


def test_a_damaged_checkpoint_names_the_whole_one_beside_it(net: Any, tmp_path: Path):
    path = write_run(tmp_path, net)
    whole = path.with_name("previous.ckpt")
    whole.write_bytes(path.read_bytes())
    damaged = path.with_name("last.ckpt")
    damaged.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"last\.ckpt is no complete checkpoint.*take .*previous\.ckpt"):
        load(damaged)
    with pytest.raises(WeightsError, match=r"There is no .*nowhere\.ckpt\. Correct the path"):
        read_checkpoint(path.with_name("nowhere.ckpt"))
