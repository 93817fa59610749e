"""Weights that are spread over devices."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.fsdp import fully_shard

from deqzoo.errors import StructureError


class Sharded(ModelParallelStrategy):
    """Trains with weights, gradients and optimizer states spread over all devices (FSDP2): --trainer.strategy sharded.

    The network is one unit: it is gathered once before the forward pass, and the solves of both passes find it whole.
    Units within a cell would be gathered for every evaluation of a solver, and `deqzoo.nn.ImplicitModule` refuses them.
    Checkpoints are those of one device.

    Between steps it saves memory where weights and optimizer states are what fills it. Weights that are tied are few:
    for every recipe so far "ddp" is the right choice.

    Raises:
        StructureError: in training with an average of the weights, such as `WarmupEMA`, which would need all of them.
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
        averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # pyright: ignore
        if averages and trainer.state.fn == TrainerFn.FITTING:
            raise StructureError(
                f"{type(averages[0]).__name__} averages whole weights, and Sharded leaves a part of them on each "
                "device. Train with --trainer.strategy ddp, or without the average."
            )
        self.accelerator.setup(trainer)
        # Lightning would want the task to do it, whatever the strategy is.
        fully_shard(self.lightning_module.net, mesh=self.device_mesh["data_parallel"])  # pyright: ignore
        self.model = self.precision_plugin.convert_module(self.lightning_module)
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()


StrategyRegistry.register("sharded", Sharded, description="Weights spread over all devices (FSDP2)")
