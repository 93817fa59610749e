"""How weights lie in memory."""

import torch
from torch import nn


def lay_channels_last(net: nn.Module) -> None:
    """Lays the convolutions of `net` out with their channels last, in place; maps follow them.

    Like `net.to(memory_format=torch.channels_last)`, which refuses networks with parameters of five dimensions, such as
    the pairs of kernels of a monDEQ. Those stay as they are.

    Args:
        net: is changed.

    """
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
