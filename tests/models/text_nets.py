"""Small language models and texts that the tests share."""

import torch
from torch import Tensor

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.solvers import Anderson, FixedPointSolver, Picard

VOCAB = 11
EXACT = Picard(rtol=1e-11, max_steps=300)
EXACT_BACK = Implicit(solver=Anderson(rtol=1e-12, max_steps=300))


def config(**changes) -> DEQTransformerConfig:
    sizes = {"width": 32, "heads": 2, "hidden": 48, "context": 16} | changes
    return DEQTransformerConfig(**sizes)


def network(
    *,
    solver: FixedPointSolver = EXACT,
    adjoint: Adjoint = EXACT_BACK,
    seed: int = 0,
    vocab_size: int = VOCAB,
    **changes,
) -> DEQTransformer:
    """A network in float64 and eval mode, whose equilibria are solved to the last digits."""
    torch.manual_seed(seed)
    net = DEQTransformer(config(**changes), vocab_size=vocab_size, solver=solver, adjoint=adjoint).double().eval()
    with torch.no_grad():
        # As drawn, vectors differ little: scores should tell tokens apart.
        for name, parameter in net.table.named_parameters():
            if "widen" not in name:
                parameter.mul_(10 if vocab_size == VOCAB else 1)
        # Else each token would announce itself.
        net.norm_out.weight.normal_()
    return net


def texts(batch: int = 3, length: int = 16, *, vocab_size: int = VOCAB, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch, length), generator=generator)
