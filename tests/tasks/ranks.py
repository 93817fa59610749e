"""What the processes of a distributed run do, and what one process does instead."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from deqzoo import adjoints, solvers
from deqzoo.errors import AdjointError
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.models.mdeq import MDEQ, MDEQConfig
from deqzoo.models.pcdeq import PcDEQ
from deqzoo.nn import ImplicitModule, equilibria

from .doomed import context

# Here each process stops when its own samples are done, after other numbers of steps than one process takes.
TOLERANCE = solvers.Anderson(rtol=1e-3, max_steps=80)
STEPS = solvers.Picard(rtol=0, max_steps=6)
ADJOINTS: dict[str, dict[str, Any]] = {
    "implicit": {"solver": STEPS, "adjoint": adjoints.Implicit(solver=STEPS)},
    "phantom": {"solver": STEPS, "adjoint": adjoints.Phantom(steps=3, damping=0.5)},
    "tolerance": {"solver": TOLERANCE, "adjoint": adjoints.Implicit(solver=TOLERANCE)},
    "reversible": {"solver": solvers.Reversible(rtol=0, max_steps=6), "adjoint": adjoints.Reversible()},
}
NETS = ("mdeq", "pcdeq", "lm")
CASES = [(net, adjoint) for net in NETS for adjoint in ADJOINTS]
BATCH = 8


def make_net(name: str, adjoint: str) -> nn.Module:
    """Returns a small network in float64. It is in eval mode, in which BatchNorm does not mix samples."""
    torch.manual_seed(0)
    runtime = ADJOINTS[adjoint]
    if name == "lm":
        config = DEQTransformerConfig(width=16, heads=2, hidden=24, context=8)
        net: nn.Module = DEQTransformer(config, vocab_size=11, **runtime)
        # Logits are float32 whatever the weights are, in which 1e-12 could not be seen.
        net.table.scores = lambda features: F.linear(features, net.table.weight)
    elif name == "mdeq":
        config = MDEQConfig(channels=(4, 6), head_channels=(2, 3), num_features=5, expansion=2, groups=2)
        net = MDEQ(config, **runtime)
    else:
        net = PcDEQ((4, 6), image_size=8, in_chans=3, **runtime)
    return net.double().eval()


def loss_of(net: nn.Module, rows: Tensor) -> Tensor:
    """Returns the mean loss of numbered samples (B,)."""
    inner = net.module if isinstance(net, DistributedDataParallel) else net
    generator = torch.Generator().manual_seed(1)
    if isinstance(inner, DEQTransformer):
        tokens = torch.randint(11, (BATCH, 9), generator=generator)[rows]
        return F.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    images = torch.randn(BATCH, 3, 8, 8, generator=generator, dtype=torch.float64)[rows]
    return F.cross_entropy(net(images), rows % 10)


def train(net: nn.Module, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Takes three steps, and yields the losses, the gradients of the first step and the final weights."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        # Two parts before one synchronisation, as with gradient accumulation.
        if isinstance(net, DistributedDataParallel):
            with net.no_sync():
                (loss_of(net, rows) / 2).backward()
        else:
            (loss_of(net, rows) / 2).backward()
        loss = loss_of(net, rows)
        (loss / 2).backward()
        if isinstance(net, DistributedDataParallel):
            torch.distributed.all_reduce(loss := loss.detach())
            loss = loss / torch.distributed.get_world_size()
        yield f"loss {step}", loss.detach().clone()
        named = [(name.removeprefix("module."), p) for name, p in net.named_parameters()]
        if step == 0:
            for name, parameter in named:
                assert parameter.grad is not None, f"{name} has no gradient: DDP would wait for it"
                yield f"gradient {name}", parameter.grad.clone()
        optimizer.step()
    for name, parameter in named:
        yield f"weight {name}", parameter.detach().clone()


def alone() -> dict[str, dict[str, Tensor]]:
    """Returns what one process finds, by case."""
    return {f"{net}-{adjoint}": dict(train(make_net(net, adjoint), torch.arange(BATCH))) for net, adjoint in CASES}


def together(world_size: int, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Returns what so many processes find, by case."""
    started = [context().Process(target=_rank, args=(rank, world_size, folder)) for rank in range(world_size)]
    for process in started:
        process.start()
    for process in started:
        process.join(200)
    assert [process.exitcode for process in started] == [0] * world_size
    return torch.load(folder / "found.pt", weights_only=True)


def _sharded(net: nn.Module, rows: Tensor, mesh: DeviceMesh, *, each: bool) -> dict[str, Tensor]:
    """Returns the gradients of a network whose weights are spread over the processes (FSDP).

    Args:
        net: the network.
        rows: numbers of samples.
        mesh: of the processes.
        each: every equilibrium a unit of its own.
    """
    for equilibrium in equilibria(net).values() if each else ():
        fully_shard(equilibrium, mesh=mesh)
    fully_shard(net, mesh=mesh)
    loss_of(net, rows).backward()
    return {f"sharded {name}": parameter.grad.full_tensor() for name, parameter in net.named_parameters()}


def _refused(net: nn.Module, mesh: DeviceMesh) -> str:
    """Returns what is said of a network the cells of which are units of FSDP."""
    for equilibrium in equilibria(net).values():
        assert isinstance(equilibrium, ImplicitModule)
        fully_shard(equilibrium.cell, mesh=mesh)
    try:
        loss_of(net, torch.arange(2))
    except AdjointError as error:
        return str(error)
    return "nothing"


def _rank(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    try:
        rows = torch.arange(BATCH)[rank::world_size]
        mesh = init_device_mesh("cpu", (world_size,))
        found = {}
        for net, adjoint in CASES:
            found[f"{net}-{adjoint}"] = {
                **dict(train(DistributedDataParallel(make_net(net, adjoint)), rows)),
                # Units of their own in one of the cases of each network, which differ in their adjoints.
                **_sharded(make_net(net, adjoint), rows, mesh, each=(net, adjoint) in CASES[::5]),
            }
        told = _refused(make_net("mdeq", "reversible"), mesh)
        assert "The cell's own module is a unit of FSDP" in told and "deqzoo.tasks.Sharded" in told, told
        if rank == 0:
            torch.save(found, folder / "found.pt")
    finally:
        torch.distributed.destroy_process_group()
