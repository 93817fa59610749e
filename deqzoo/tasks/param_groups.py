"""Which parameters weight decay applies to."""

from typing import Any

from torch import nn

from deqzoo.models.classifier import is_vector


def weight_decay_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Returns the trainable parameters as optimizer groups: first those that decay, then those that do not.

    Matrices and kernels decay, by the optimizer's own `weight_decay`. What is a vector up to dimensions of
    length 1 does not: biases, the scales of norms, the gains of parametrised weights. Pulling these to zero
    changes what a layer computes instead of how smoothly. Frozen parameters and empty groups are left out.
    """
    trainable = [p for p in net.parameters() if p.requires_grad]
    decaying = [p for p in trainable if not is_vector(p)]
    others = [p for p in trainable if is_vector(p)]
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
