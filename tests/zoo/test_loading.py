"""From names and folders to models."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.data.config import resolve_data_config
from timm.models import PretrainedCfg
from timm.models._manipulate import adapt_input_conv

import deqzoo
from deqzoo import create_model, load
from deqzoo.adjoints import OneStep
from deqzoo.errors import UnknownModelError, WeightsError
from deqzoo.nn import ImplicitModule
from deqzoo.solvers import Anderson
from deqzoo.zoo import save
from deqzoo.zoo.adapt import adapt_channels


def images(channels: int = 1, size: int = 28) -> torch.Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(5))


def equilibrium(net: Any) -> ImplicitModule:
    return next(module for module in net.modules() if isinstance(module, ImplicitModule))


@pytest.mark.parametrize("name", ["zoo-probe", "zoo_probe", "Zoo_PROBE"])
def test_a_name_in_any_spelling_gives_the_published_weights_in_eval_mode(package: Path, net: Any, name: str):
    model: Any = load(name)
    assert not any(module.training for module in model.modules())
    assert type(model).__name__ == "ImageClassifier"
    with torch.no_grad():
        assert torch.equal(model(images()), net.eval()(images()))
    assert model.transform is not None


def test_pretrained_networks_are_the_same_as_loaded_ones(package: Path, net: Any):
    found = create_model("zoo-probe", pretrained=True)
    assert found.training
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), net.state_dict().values(), strict=True))


def test_a_loaded_model_trains(package: Path):
    model: Any = load("zoo-probe").train()
    model(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_solver_adjoint_and_budget_can_be_chosen(package: Path):
    model: Any = load("zoo-probe", solver=Anderson(), adjoint=OneStep(), max_steps=7, rtol=1e-2)
    assert equilibrium(model).solver == Anderson(max_steps=7, rtol=1e-2)
    assert equilibrium(model).adjoint == OneStep()
    assert equilibrium(create_model("zoo-probe", max_steps=3)).solver.max_steps == 3


def test_timm_understands_the_description_of_the_inputs(net: Any):
    cfg = PretrainedCfg(**net.pretrained_cfg)  # refuses unknown keys
    resolved = resolve_data_config(pretrained_cfg=cfg.to_dict())
    assert (list(resolved["mean"]), resolved["input_size"]) == ([0.1307], [1, 28, 28])
    assert (cfg.first_conv, cfg.classifier, cfg.num_classes) == ("stages.0.entry", "fc", 10)
    assert cfg.license == "apache-2.0"


def test_another_number_of_classes_gets_a_fresh_head_and_says_so(package: Path, net: Any, caplog: Any):
    with caplog.at_level(logging.WARNING, "deqzoo"):
        model: Any = load("zoo-probe", num_classes=7)
    assert model(images()).shape == (3, 7)
    assert "head 'fc' of 10 classes was replaced by a fresh random one of 7" in caplog.text
    assert torch.equal(model.net.stages[0].entry.weight, net.stages[0].entry.weight)
    assert model.net.pretrained_cfg["num_classes"] == 7
    assert "label_names" not in model.net.pretrained_cfg


def test_the_same_number_of_classes_keeps_the_head(package: Path, net: Any, caplog: Any):
    model: Any = load("zoo-probe", num_classes=10, in_chans=1)
    assert torch.equal(model.net.fc.weight, net.fc.weight)
    assert caplog.text == ""


def test_no_classes_give_features(package: Path, net: Any):
    model: Any = load("zoo-probe", num_classes=0)
    with torch.no_grad():
        assert torch.equal(model(images()), net.eval().forward_head(net.forward_features(images()), pre_logits=True))


@pytest.mark.parametrize("name", ["zoo-probe", "zoo-probe-dense"])
def test_grey_weights_see_in_colour_what_they_saw_in_grey(name: str, tmp_path: Path, caplog: Any):
    torch.manual_seed(0)
    grey: Any = create_model(name).eval()
    save(grey, tmp_path, name=name)
    with caplog.at_level(logging.WARNING, "deqzoo"):
        model: Any = load(tmp_path, in_chans=3)
    assert "'stages.0.entry' of 1 channels was adapted to 3" in caplog.text
    assert model.net.pretrained_cfg["input_size"] == [3, 28, 28]
    assert model.net.pretrained_cfg["mean"] == [0.1307] * 3
    with torch.no_grad():
        coloured = images().repeat(1, 3, 1, 1)
        torch.testing.assert_close(model(coloured), grey(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 4), (3, 7), (1, 3), (3, 3)])
def test_channels_are_adapted_as_timm_does(old: int, new: int):
    weight = torch.randn(5, old, 3, 3)
    torch.testing.assert_close(adapt_channels(weight, old, new), adapt_input_conv(new, weight, base_chans=old))


def test_loading_leaves_the_random_numbers_of_the_user_alone(package: Path):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load("zoo-probe")
    assert torch.equal(torch.rand(1), expected)


def test_a_folder_gives_the_same_model(folder: Path, net: Any):
    model: Any = load(folder)
    with torch.no_grad():
        assert torch.equal(model(images()), net.eval()(images()))
    assert load(str(folder)).net.pretrained_cfg == net.pretrained_cfg  # pyright: ignore


def test_a_name_comes_before_a_folder_that_is_called_so(package: Path, tmp_path: Path, monkeypatch: Any):
    other = create_model("zoo-probe", num_classes=4)
    save(other, tmp_path / "zoo-probe", name="zoo-probe")
    monkeypatch.chdir(tmp_path)
    assert load("zoo-probe").net.num_classes == 10  # pyright: ignore
    assert load("./zoo-probe").net.num_classes == 4  # pyright: ignore


def test_unknown_names_get_a_suggestion():
    for call in (load, create_model, deqzoo.describe):
        with pytest.raises(UnknownModelError, match=r"No model is called 'zoo-prob'. Did you mean 'zoo-probe'"):
            call("zoo-prob")


def test_a_name_without_weights_says_how_to_get_some(package: Path):
    with pytest.raises(WeightsError, match=r"No pretrained weights exist for 'zoo-probe-rgb'.*make it untrained"):
        load("zoo-probe-rgb")
    with pytest.raises(WeightsError, match=r"No pretrained weights exist"):
        create_model("zoo-probe-rgb", pretrained=True)
    (package / "weights.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"deqzoo fit -c recipes/zoo-probe\.yaml"):
        load("zoo-probe")


def test_paths_that_lead_nowhere_are_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"nowhere does not exist.*correct the path"):
        load(tmp_path / "nowhere")
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"weights\.pt is a file of another kind"):
        load(tmp_path / "weights.pt")


@pytest.mark.parametrize("call", [load, create_model])
def test_impossible_sizes_and_unknown_keywords_are_refused(package: Path, call: Any):
    with pytest.raises(ValueError, match=r"num_classes=-1. Use a positive number, or 0 for pooled features"):
        call("zoo-probe", num_classes=-1)
    with pytest.raises(ValueError, match=r"in_chans=0. Images have at least one channel"):
        call("zoo-probe", in_chans=0)
    with pytest.raises(ValueError, match=r"num_classes='3', a str"):
        call("zoo-probe", num_classes="3")
    with pytest.raises(ValueError, match=r"in_chans=3\.0, a float"):
        call("zoo-probe", in_chans=3.0)
    with pytest.raises(ValueError, match=r"rtol='1e-3'"):
        call("zoo-probe", rtol="1e-3")
    with pytest.raises(ValueError, match=r"max_steps=2\.5. It takes a whole number of steps"):
        call("zoo-probe", max_steps=2.5)
    with pytest.raises(TypeError, match=r"num_class"):
        call("zoo-probe", num_class=3)
    with pytest.raises(ValueError, match=r"rtol=-1"):
        call("zoo-probe", rtol=-1.0)
