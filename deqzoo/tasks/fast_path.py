"""Training at the full speed of a device."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from deqzoo.nn import compile_cells, lay_channels_last


class FastPath(Callback):
    """Compiles the maps of all equilibria and lays out convolutions channels last.

    Two more parts belong to the trainer and to the solver. `Trainer(precision="bf16-mixed")` evaluates maps in bfloat16
    and keeps states in float32. A solver with rtol=0 spends a fixed budget, and the host never waits for the device to
    ask whether it may stop; `TrainingSolver` gives training such a one.

    Checkpoints are the same with and without. Weights agree to rounding. Each size of a batch is compiled on its own:
    maps for all sizes would round in another way when a resumed run meets sizes in another order.

    Args:
        compile: whether maps are compiled, which takes minutes when training starts.
        channels_last: whether weights are laid out so; maps follow them.
        options: of `torch.compile`.
    """

    def __init__(
        self, *, compile: bool = True, channels_last: bool = True, options: dict[str, Any] | None = None
    ) -> None:
        self.compile = compile
        self.channels_last = channels_last
        self.options = {"dynamic": False} | (options or {})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Changes the network before it is moved to its device."""
        if self.channels_last:
            lay_channels_last(pl_module)
        if self.compile:
            compile_cells(pl_module, **self.options)
