"""Reading numbers from a device without making it wait."""

import torch
from torch import Tensor


class OnItsWay:
    """A number that is copied to the host behind the work that makes it.

    Read once more work has been queued, it stops the host until the number is there, but never leaves the device idle:
    `Tensor.item` would first wait for all that is queued.

    Args:
        value: a tensor of one element, with or without gradient.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach()
        self._arrived: torch.Event | None = None
        if value.is_cuda:
            self._value = self._value.to("cpu", non_blocking=True)  # to pinned memory
            self._arrived = torch.cuda.current_stream(value.device).record_event()

    def read(self) -> float:
        """Returns the number."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)
