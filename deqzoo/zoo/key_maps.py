"""Where the tensors of other projects' networks go in ours, for architectures that are the same.

pcDEQ (github.com/mateuszgabor/pcdeq, networks.py), k-th equilibrium of L:

    conv1, linear1, downsample{k-1}     stages.{k-1}.entry
    bn{2k-1}, bn{2k}                    stages.{k-1}.norm_in, .norm_out
    block{k}.deq.f.W                    stages.{k-1}.equilibrium.cell.linear   (W = g v / ‖v‖ with g, v ≥ 0)
    classifier                          fc

MDEQ (github.com/locuslab/deq, MDEQ-Vision; github.com/locuslab/torchdeq, deq-zoo/mdeq), scales i and j:

    downsample, stage0                  stem, inject
    fullstage, full_stage               equilibrium.cell
      .branches.i.blocks.0              .blocks.i: conv1, gn1 -> expand; conv2 -> reduce; gn2 -> norm; gn3 -> finish
      .fuse_layers.i.j.net              .fuse.i.j
      .post_fuse_layers.i               .post.i                                (norms without affine get 1 and 0)
    incre_modules, downsamp_modules     head.widen, head.halve
    final_layer, classifier             head.final, fc

monDEQ (github.com/locuslab/monotone_op_net, train.py, SingleFcNet), for networks that are `dense` without norms:

    mon.linear_module.U                 entries.0
    mon.linear_module.A, B              equilibrium.cell.operator              (W = (1 − m) I − AᵀA + B − Bᵀ)
    Wout                                fc

Its convolutional networks pool a map that has a border of zeros, which ours do not have: they are not the same.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deqzoo.errors import WeightsError
from deqzoo.models.mdeq import MDEQ
from deqzoo.models.mondeq import MonDEQ
from deqzoo.models.pcdeq import PcDEQ
from deqzoo.nn import NonNegative

_PCDEQ: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^(?:conv1|linear1)\.", "stages.0.entry."),
    (r"^downsample(\d)\.", r"stages.\1.entry."),
    (r"^bn(\d)\.", lambda m: f"stages.{(int(m[1]) - 1) // 2}.norm_{'in' if int(m[1]) % 2 else 'out'}."),
    (r"^block(\d?)\.deq\.f\.W\.", lambda m: f"stages.{int(m[1] or 1) - 1}.equilibrium.cell.linear."),
    (r"^classifier\.", "fc."),
)
_MDEQ: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^downsample\.", "stem."),
    (r"^stage0\.", "inject."),
    (r"^full_?stage\.", "equilibrium.cell."),
    (r"branches\.(\d)\.blocks\.0\.", r"blocks.\1."),
    (r"(blocks\.\d)\.conv1\.", r"\1.expand.0."),
    (r"(blocks\.\d)\.gn1\.", r"\1.expand.1."),
    (r"(blocks\.\d)\.conv2\.", r"\1.reduce."),
    (r"(blocks\.\d)\.gn2\.", r"\1.norm."),
    (r"(blocks\.\d)\.gn3\.", r"\1.finish.1."),
    (
        r"post_fuse_layers\.(\d)\.(conv|gnorm)\.",
        lambda m: f"post.{m[1]}.{1 if m[2] == 'conv' else 2}.",
    ),
    (
        r"fuse_layers\.(\d)\.(\d)\.net\.(?:(\d)\.)?(conv|gnorm)\.",
        lambda m: f"fuse.{m[1]}.{m[2]}.{3 * int(m[3] or 0) + (m[4] == 'gnorm')}.",
    ),
    (
        r"^incre_modules\.(\d)\.0\.(conv|bn)(\d)\.",
        lambda m: f"head.widen.{m[1]}.layers.{3 * int(m[3]) - 3 + (m[2] == 'bn')}.",
    ),
    (r"^incre_modules\.(\d)\.0\.downsample\.", r"head.widen.\1.shortcut."),
    (r"^downsamp_modules\.", "head.halve."),
    (r"^final_layer\.", "head.final."),
    (r"^classifier\.", "fc."),
)

_DENSE_MONDEQ = ((r"^mon\.linear_module\.U\.", "entries.0."), (r"^Wout\.", "fc."))


def translated(tensors: Mapping[str, Tensor], net: nn.Module, origin: str) -> dict[str, Tensor]:
    """Returns a state dict for `net` of one that another project saved.

    What does not fit stays in under its own name, so that loading it says so.

    Args:
        tensors: the other state dict.
        net: of the same architecture.
        origin: where the tensors come from, for messages.

    Raises:
        WeightsError: if no layout is known for the architecture, or a constraint of it does not hold.
    """
    if isinstance(net, PcDEQ):
        return _nonnegative(_fitted(_renamed(tensors, _PCDEQ), net), net, origin)
    if isinstance(net, MDEQ):
        return _fitted(_renamed(tensors, _MDEQ), net)
    if isinstance(net, MonDEQ) and net.config.dense and not net.config.norms:
        return _dense_monotone(tensors)
    raise WeightsError(
        f"No other project's layout is known for {type(net).__name__}, which {origin} should belong to. Known are "
        "those of pcDEQ, MDEQ and the dense monDEQ: choose a model of these."
    )


def _renamed(tensors: Mapping[str, Tensor], rules: tuple[tuple[str, Any], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in tensors.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


def _fitted(tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Returns renamed tensors with weights split into gain and direction where, and only where, the network does."""
    fitted, own = dict(tensors), net.state_dict()
    for base, module in net.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        gain, direction = (fitted.pop(f"{base}.weight_{part}", None) for part in "gv")
        plain = fitted.pop(f"{base}.weight", None)
        if parametrize.is_parametrized(module, "weight"):
            if plain is not None:
                gain, direction = _row_norms(plain), plain
            # torch's own weight norm has the gain first.
            names = ("original1", "original0") if _holds_nonnegative(module) else ("original0", "original1")
            for name, part in zip(names, (gain, direction), strict=True):
                if part is not None:
                    fitted[f"{base}.parametrizations.weight.{name}"] = part
        elif gain is not None and direction is not None:
            fitted[f"{base}.weight"] = gain * direction / _row_norms(direction)
        elif plain is not None:
            fitted[f"{base}.weight"] = plain
    for base, module in net.named_modules():
        if isinstance(module, nn.GroupNorm) and f"{base}.weight" in own and f"{base}.weight" not in fitted:
            if re.search(r"\.post\.\d\.2$", base) is None:
                continue  # only these may come without
            fitted |= {f"{base}.weight": torch.ones_like(own[f"{base}.weight"])}
            fitted |= {f"{base}.bias": torch.zeros_like(own[f"{base}.bias"])}
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    return counters | fitted


def _nonnegative(tensors: dict[str, Tensor], net: nn.Module, origin: str) -> dict[str, Tensor]:
    """Checks that W ≥ 0 holds in the other project's words too: ours takes absolute values."""
    for base, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and _holds_nonnegative(module):
            for name in ("original0", "original1"):
                part = tensors.get(f"{base}.parametrizations.weight.{name}")
                if part is not None and bool((part < 0).any()):
                    raise WeightsError(
                        f"{origin} has negative entries in the weights of {base}. A pcDEQ has none, so that its "
                        "equilibrium is unique: take a checkpoint that was saved after they were clamped."
                    )
    return tensors


def _dense_monotone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    fitted, prefix = dict(tensors), "mon.linear_module."
    if all(f"{prefix}{part}.weight" in fitted for part in "AB"):
        pair = torch.stack([fitted.pop(f"{prefix}{part}.weight") for part in "AB"])
        fitted["equilibrium.cell.operator.parametrizations.weight.original"] = pair
    return _renamed(fitted, _DENSE_MONDEQ)


def _holds_nonnegative(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module, "weight") and any(
        isinstance(part, NonNegative)
        for part in module.parametrizations.weight  # pyright: ignore
    )


def _row_norms(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
