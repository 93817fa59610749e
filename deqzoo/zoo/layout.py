"""config.json: what lies beside weights, in timm's layout with a block of our own."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from deqzoo.models import INPUT_SPECS, ModelEntry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.nn import equilibria
from deqzoo.version import __version__

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
LICENSE = "apache-2.0"
"""Of the weights. Data have licences of their own."""
SCHEMA_VERSION = 1


def pretrained_cfg(entry: ModelEntry, net: Any) -> dict[str, Any]:
    """Returns timm's description of the inputs and outputs of a network, or the like for one that takes texts.

    It is {} for data sets that are neither.
    """
    if entry.dataset in TEXT_SPECS:
        return {
            "architecture": entry.name.replace("-", "_"),
            "tag": entry.dataset,
            "vocab_size": net.vocab_size,
            "context": net.context,
            "license": LICENSE,
            "description": entry.description,
            "vocabulary": None,  # until it is trained on a text, or loaded
        }
    spec = INPUT_SPECS.get(entry.dataset)
    if spec is None:
        return {}
    cfg: dict[str, Any] = {
        "architecture": entry.name.replace("-", "_"),
        "tag": spec.dataset,
        "custom_load": False,
        "input_size": [spec.channels, *spec.size],
        "fixed_input_size": net.fixed_input_size,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "num_classes": len(spec.label_names),
        "label_names": list(spec.label_names),
        "pool_size": None,
        "first_conv": first_layer(net),
        "classifier": classifier_name(net),
        "license": LICENSE,
        "description": entry.description,
    }
    return fitted_cfg(cfg, num_classes=net.num_classes, in_chans=net.in_chans)


def fitted_cfg(cfg: dict[str, Any], *, num_classes: int, in_chans: int) -> dict[str, Any]:
    """Returns the description after a change of classes, whose names are then unknown, and of channels."""
    cfg = dict(cfg)
    if num_classes != cfg["num_classes"]:
        cfg["num_classes"] = num_classes
        cfg.pop("label_names", None)
    if in_chans != cfg["input_size"][0]:
        cfg["input_size"] = [in_chans, *cfg["input_size"][1:]]
        for key in ("mean", "std"):
            values = cfg[key]
            cfg[key] = (
                [sum(values) / len(values)] if in_chans == 1 else [values[i % len(values)] for i in range(in_chans)]
            )
    return cfg


def first_layer(net: Any) -> str:
    """Returns the name of the layer that meets the images: the first convolution or matrix but for the head."""
    head = net.get_classifier()
    layers = (name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and m is not head)
    return next(layers)


def classifier_name(net: Any) -> str:
    """Returns the name of the last layer."""
    last = net.get_classifier()
    return next(name for name, module in net.named_modules() if module is last)


def runtime_of(net: nn.Module) -> tuple[list[str], list[str]]:
    """Returns the solvers and the adjoints of a network's equilibria in words, each once."""
    found = equilibria(net).values()
    return sorted({str(module.solver) for module in found}), sorted({str(module.adjoint) for module in found})


def build_config(entry: ModelEntry, net: Any, *, results: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of config.json.

    Args:
        entry: the configuration that made `net`.
        net: the network, with its `pretrained_cfg`.
        results: measured figures, as an evaluation gives them.
        weights: "sha256" and "size" of the file of weights.
    """
    solvers, adjoints = runtime_of(net)
    cfg = net.pretrained_cfg
    if "input_size" in cfg:  # a head may have been replaced since the network was made
        cfg = fitted_cfg(cfg, num_classes=net.num_classes, in_chans=net.in_chans)
    return {
        "architecture": entry.name.replace("-", "_"),
        **_sizes(net),
        # timm reads them below, transformers here.
        **{key: cfg[key] for key in ("label_names",) if key in cfg},
        "pretrained_cfg": cfg,
        "deqzoo": {
            "schema_version": SCHEMA_VERSION,
            "library_version": __version__,
            "name": entry.name,
            "task": entry.task,
            "dataset": entry.dataset,
            "recipe": entry.recipe,
            "solver": solvers,
            "adjoint": adjoints,
            "weights": weights,
            "results": results,
        },
    }


def _sizes(net: Any) -> dict[str, int]:
    if "vocab_size" in net.pretrained_cfg:
        return {"vocab_size": net.vocab_size, "context": net.context}
    return {"num_classes": net.num_classes, "num_features": net.num_features}


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes config.json into a folder."""
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", "utf-8")
