"""What a recipe needs: steps that are measured here, by solver budget, and a run that is estimated from them."""

from collections import defaultdict
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from deqzoo.benchmark.machine import now
from deqzoo.benchmark.memory import LiveBytes
from deqzoo.benchmark.scaling import Cluster, StepCost, all_reduce_seconds, sent_bytes, step_seconds
from deqzoo.nn import equilibria

TRAINING_SAMPLES = {"mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
TRAINING_SAMPLES |= {"imagenet-1k": 1_281_167}
"""Images of the training sets."""
TRAINING_TOKENS = {"tiny-shakespeare": 1_003_854, "ptb": 929_589, "wikitext-103": 103_227_021}
"""Tokens of the training texts, an epoch of which reads each about once."""
WARMUPS, TIMED = 1, 2
STEPS_PER_BUDGET = WARMUPS + TIMED + 1  # the last with its memory counted, which takes time


@dataclass(frozen=True, kw_only=True)
class BudgetCost:
    """Training steps with one budget of the solvers.

    Attributes:
        max_steps: the budget; 0 for a network without equilibria.
        factor: of the recipe's own budget.
        seconds: of the fastest step.
        backward: share of it that the backward pass has.
        step_bytes: most bytes of tensors that a step made and had at once.
        state_bytes: of parameters and optimizer, which stay.
    """

    max_steps: int
    factor: float
    seconds: float
    backward: float
    step_bytes: int
    state_bytes: int


class Measure(Callback):
    """Measures training steps as the trainer takes them, at one budget after the other.

    Args:
        factors: of the recipe's own budget.

    Attributes:
        gradient_bytes: of all trained parameters.
        flops: that a step at the recipe's own budget executes, forward and backward; 0 if that is not measured.
    """

    def __init__(self, factors: tuple[float, ...]) -> None:
        self.factors = factors
        self.gradient_bytes = self.flops = 0
        self._count = self._state_bytes = 0
        self._own: dict[str, int] = {}
        self._budgets: dict[int, int] = {}
        self._seen: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._bytes: dict[int, int] = {}
        self._counters: list[Any] = []
        self._times: list[float] = []

    @property
    def num_steps(self) -> int:
        """Steps to take."""
        return STEPS_PER_BUDGET * len(self.factors)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the budget and starts the clock."""
        index, place = divmod(self._count, STEPS_PER_BUDGET)
        self._budgets[index] = self._set_budget(pl_module, self.factors[index])
        if place == STEPS_PER_BUDGET - 1:
            self._counters = [FlopCounterMode(display=False), LiveBytes()]
            for counter in self._counters:
                counter.__enter__()
        self._times = [now(pl_module.device)]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Takes the time."""
        self._times.append(now(pl_module.device))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the time."""
        self._times.append(now(pl_module.device))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps what was measured."""
        start, before, after, end = *self._times, now(pl_module.device)
        index, place = divmod(self._count, STEPS_PER_BUDGET)
        if self._counters:
            for counter in reversed(self._counters):
                counter.__exit__(None, None, None)
            flops, memory = self._counters
            self._counters = []
            self._bytes[index] = memory.peak
            if self.factors[index] == 1:
                self.flops = flops.get_total_flops()
        elif place >= WARMUPS:
            self._seen[index].append((end - start, (after - before) / (end - start)))
        self._count += 1
        self.gradient_bytes = sum(p.nbytes for p in pl_module.parameters() if p.requires_grad)
        kept = [x for x in tree_leaves([o.state_dict() for o in trainer.optimizers]) if isinstance(x, Tensor)]
        self._state_bytes = sum(x.nbytes for x in (*pl_module.parameters(), *pl_module.buffers(), *kept))

    def costs(self) -> list[BudgetCost]:
        """Returns what was measured, by budget."""
        return [
            BudgetCost(
                max_steps=self._budgets[index],
                factor=self.factors[index],
                seconds=min(seen)[0],
                backward=min(seen)[1],
                step_bytes=self._bytes[index],
                state_bytes=self._state_bytes,
            )
            for index, seen in self._seen.items()
        ]

    def _set_budget(self, module: LightningModule, factor: float) -> int:
        """Returns the budget of the last of all equilibria, 0 if there is none."""
        budget = 0
        for name, equilibrium in equilibria(module).items():
            solver: Any = equilibrium.solver
            if "max_steps" in {field.name for field in fields(solver)}:
                own = self._own.setdefault(name, solver.max_steps)
                budget = max(1, round(own * factor))
                equilibrium.solver = replace(solver, max_steps=budget)
        return budget


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole run of a recipe on many devices.

    Attributes:
        gpus: number of devices.
        batch_size: samples per step and device.
        samples: that an epoch has; windows, of a text.
        epochs: of the recipe.
        measured_batch: samples per step that were measured with.
        device_factor: how many times as fast as the measured device the others are.
    """

    gpus: int
    batch_size: int
    samples: int
    epochs: int
    measured_batch: int
    device_factor: float


def estimate(cost: BudgetCost, run: Run, gradient_bytes: int, cluster: Cluster) -> dict[str, Any]:
    """Returns what a run takes by the model of `deqzoo.benchmark.scaling`, in plain values.

    Time is taken to be in proportion to the batch, which overestimates it on devices that a small batch leaves idle.
    """
    scale = run.batch_size / run.measured_batch
    compute = cost.seconds * scale / run.device_factor
    step = StepCost(seconds=compute, backward=cost.backward, gradient_bytes=gradient_bytes)
    seconds = step_seconds(step, run.gpus, cluster)
    steps = run.epochs * -(-run.samples // (run.batch_size * run.gpus))
    return {
        **asdict(cost),
        "device_bytes": round(cost.state_bytes + gradient_bytes + cost.step_bytes * scale),
        "step_seconds": seconds,
        "communication_seconds": all_reduce_seconds(gradient_bytes, run.gpus, cluster),
        "sent_bytes": sent_bytes(gradient_bytes, run.gpus),
        "efficiency": compute / seconds,
        "steps": steps,
        "hours": steps * seconds / 3600,
        "gpu_hours": steps * seconds / 3600 * run.gpus,
    }
