"""Smaller images for a part of a run."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from deqzoo.errors import StructureError
from deqzoo.tasks.base import Task
from deqzoo.tasks.for_one_batch import ForOneBatch


class CoarseImages(ForOneBatch):
    """Shrinks training images before the network sees them, after they are augmented.

    What is learnt early, coarse images show as well, and their cost falls with the square of the size. Networks have to
    take images of several sizes, a multiple of the coarsest scale's stride for multiscale ones, and the last part of a
    run has to have images as they are. Outside of training batches they keep their size.

    Args:
        size: pixels along the shorter side. Images that are no larger stay as they are.
        start: share of the run's steps after which images are shrunk.
        end: share of the run's steps after which they are not.

    Raises:
        ValueError: for a size below one.
        StructureError: in training, for inputs that are no images.
    """

    def __init__(self, *, size: int, start: float = 0.0, end: float = 1.0) -> None:
        super().__init__(start=start, end=end)
        if size < 1:
            raise ValueError(f"CoarseImages got size={size}. It is a number of pixels: use 24 for images of 32, say.")
        self.size = size
        self._hook: RemovableHandle | None = None

    def do(self, task: LightningModule) -> None:
        """Arranges for smaller images."""
        assert isinstance(task, Task)
        self._hook = task.net.register_forward_pre_hook(self._shrink)

    def undo(self) -> None:
        """Takes the hook of the batch away."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _shrink(self, net: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images: Tensor = inputs[0]
        if images.ndim != 4:
            raise StructureError(
                f"CoarseImages met an input of shape {tuple(images.shape)}. Only images (B, C, H, W) can be shrunk: "
                "take it out of the callbacks."
            )
        shorter = min(images.shape[-2:])
        if shorter <= self.size:
            return inputs
        size = [round(side * self.size / shorter) for side in images.shape[-2:]]
        return (F.interpolate(images, size=size, mode="bilinear", antialias=True), *inputs[1:])
