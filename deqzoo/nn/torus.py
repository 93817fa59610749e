"""Convolutions as what they do to frequencies, on a torus that is large enough for maps with zeros around them.

On maps of that side, with zeros around them, a convolution is a compression of the one on the torus: neither its norm
nor the least eigenvalue of its symmetric part is worse.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def torus_length(side: int, reach: int) -> int:
    """Returns a length of which the Fourier transform is fast, even, for maps of `side` and kernels of 2 `reach` + 1.

    It has room for what would come around: nothing on the map meets anything but zeros.
    """
    n = max(side + reach, 2 * reach + 1)
    n += n % 2
    while not _is_fast(n):
        n += 2
    return n


def _is_fast(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def symbol(kernel: Tensor, height: int, width: int) -> Tensor:
    """Returns what a convolution of taps (D, C, k, k), k odd, does to each frequency of a real map on a torus.

    Args:
        kernel: as `F.conv2d` takes it.
        height: of the torus.
        width: of the torus, likewise at least k.

    Returns:
        (height, width // 2 + 1, D, C), complex.

    """
    taps = kernel.shape[-1]
    reach = taps // 2
    padded = F.pad(kernel, (0, width - taps, 0, height - taps)).roll((-reach, -reach), (2, 3))
    return torch.fft.rfft2(padded).conj().permute(2, 3, 0, 1)
