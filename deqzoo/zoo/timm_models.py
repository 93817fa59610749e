"""The vision models of the zoo under timm's roof: `import deqzoo; timm.create_model("mdeq_cifar_original")`.

timm knows names with underscores, and takes half a second to import. Names are therefore handed to it when it is
imported, before `deqzoo` or after.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from deqzoo.errors import StructureError
from deqzoo.models import INPUT_SPECS, ModelEntry, entries
from deqzoo.nn import set_runtime
from deqzoo.zoo import manifest
from deqzoo.zoo.layout import LICENSE, WEIGHTS_FILE, fitted_cfg
from deqzoo.zoo.loading import create_model, load_network
from deqzoo.zoo.stored import HUB_PREFIX

default_cfgs: dict[str, Any] = {}
"""timm looks here for what it knows of a model before it is built."""


def register_with_timm() -> None:
    """Hands every vision model to timm, now if it is imported and otherwise when it is."""
    if "timm" in sys.modules:
        _register()
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(MetaPathFinder, Loader):
    """Finds timm as Python does, and registers the models once it has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = exec_module
        return spec


def _register() -> None:
    from timm.models import generate_default_cfgs, is_model, register_model

    for entry in entries():
        name = _timm_name(entry)
        # An ImageNet of timm's own is looked up in timm, which is imported by now.
        if entry.dataset in INPUT_SPECS and not is_model(name):
            default_cfgs.update(generate_default_cfgs({f"{name}.{entry.dataset}": _known(entry)}))
            register_model(_entrypoint(entry, name))


def _timm_name(entry: ModelEntry) -> str:
    return entry.name.replace("-", "_")


def _known(entry: ModelEntry) -> dict[str, Any]:
    """Returns what timm lists of a model: its inputs, and where its weights are."""
    spec, record = INPUT_SPECS[entry.dataset], manifest.published(entry.name)
    source: dict[str, Any] = {}
    if record is not None and record.source == "embedded":
        source = {"file": str(manifest.embedded_folder(entry.name) / WEIGHTS_FILE)}
    elif record is not None:
        source = {"hf_hub_id": f"{record.repo}@{record.revision}" if record.revision else record.repo}
    return {
        **source,
        "input_size": (spec.channels, *spec.size),
        "mean": spec.mean,
        "std": spec.std,
        "crop_pct": 1.0,
        "num_classes": len(spec.label_names),
        "license": LICENSE,
        "description": entry.description,
    }


def _entrypoint(entry: ModelEntry, name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        return _build(entry, name, pretrained, **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = entry.description
    return build


def _build(
    entry: ModelEntry,
    name: str,
    pretrained: bool,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    pretrained_model_args: dict[str, Any] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    **runtime: Any,
) -> nn.Module:
    """Returns a network or, with `features_only`, what gives its maps; `runtime` is that of `deqzoo.create_model`."""
    from timm.models import build_model_with_cfg, resolve_pretrained_cfg

    if global_pool != "avg" or drop_rate or drop_path_rate:
        raise StructureError(
            f"Got global_pool={global_pool!r}, drop_rate={drop_rate}, drop_path_rate={drop_path_rate}. {name} averages "
            "its maps and has no such dropout: leave them out."
        )
    given: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
    sizes = {k: v for k, v in given.items() if v is not None}
    cfg = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
    home = _home(entry, cfg) if pretrained else None
    net: Any = create_model(entry.name, **sizes) if home is None else load_network(home, **sizes)
    set_runtime(net, **runtime)
    _check_size(net, name, img_size)
    own = net.pretrained_cfg
    described = {**own, **cfg.to_dict(), **{k: own[k] for k in ("first_conv", "classifier", "fixed_input_size")}}
    net = build_model_with_cfg(
        lambda **_: net,
        name,
        pretrained and home is None,
        pretrained_cfg=described,
        pretrained_model_args=pretrained_model_args,
        cache_dir=cache_dir,
        features_only=features_only,
        feature_cfg={"feature_cls": "getter", "out_indices": out_indices},
        num_classes=net.num_classes,
        in_chans=net.in_chans,
    )
    if not features_only:
        net.pretrained_cfg = fitted_cfg(net.pretrained_cfg, num_classes=net.num_classes, in_chans=net.in_chans)
        net.default_cfg = net.pretrained_cfg
    return net


def _home(entry: ModelEntry, cfg: Any) -> str | Path | None:
    """Returns where weights of ours are, which are loaded and checked by us; None for other weights."""
    if cfg.source == "local-dir":
        return Path(cfg.file)
    if cfg.source == "hf-hub":
        return HUB_PREFIX + cfg.hf_hub_id
    known = default_cfgs[_timm_name(entry)].default
    ours = not cfg.state_dict and not cfg.url and (cfg.file, cfg.hf_hub_id) == (known.file, known.hf_hub_id)
    return entry.name if ours else None


def _check_size(net: Any, name: str, img_size: int | Sequence[int] | None) -> None:
    if img_size is None or not net.fixed_input_size:
        return
    wanted = [img_size, img_size] if isinstance(img_size, int) else list(img_size)
    if wanted != list(net.pretrained_cfg["input_size"])[1:]:
        raise StructureError(
            f"Got img_size={img_size}. {name} is made for images of {net.pretrained_cfg['input_size'][1:]} alone: "
            "resize them, or take a network that takes any size."
        )
