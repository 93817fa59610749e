"""Weights that are spread over devices."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.fsdp import fully_shard

from deqzoo.errors import StructureError
from deqzoo.tasks.warmup_ema import WarmupEMA


class Sharded(ModelParallelStrategy):
    """Trains with weights, gradients and optimizer states spread over all devices (FSDP2): --trainer.strategy sharded.

    The network is one unit: it is gathered once before the forward pass, and the solves of both passes find it whole.
    Units within a cell would be gathered for every evaluation of a solver, and `deqzoo.nn.ImplicitModule` refuses them.
    Checkpoints are those of one device.

    Between steps it saves memory where weights and optimizer states are what fills it. Weights that are tied are few:
    for every recipe so far "ddp" is the right choice.

    Raises:
        StructureError: for an average of the weights that would need all of them, as any but `WarmupEMA` does.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Takes all devices of all nodes for one group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Spreads the network of the task, then makes its optimizer."""
        assert self.accelerator is not None and self.lightning_module is not None
        self.accelerator.setup(trainer)
        # Lightning would want the task to do it, whatever the strategy is.
        mesh = self.device_mesh["data_parallel"]
        fully_shard(self.lightning_module.net, mesh=mesh)  # pyright: ignore
        for callback in trainer.callbacks:  # pyright: ignore
            if isinstance(callback, WarmupEMA):
                callback.spread(mesh)
            elif isinstance(callback, WeightAveraging) and trainer.state.fn == TrainerFn.FITTING:
                raise StructureError(
                    f"{type(callback).__name__} averages whole weights, and Sharded leaves a part of them on each "
                    "device. Average with deqzoo.tasks.WarmupEMA, or train with --trainer.strategy ddp."
                )
        self.model = self.precision_plugin.convert_module(self.lightning_module)
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()


StrategyRegistry.register("sharded", Sharded, description="Weights spread over all devices (FSDP2)")
