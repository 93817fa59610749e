"""Finding what a map depends on beyond its arguments."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node

from deqzoo.adjoints.autocast import fresh_casts
from deqzoo.adjoints.base import uncached_weights
from deqzoo.errors import AdjointError


def captured_leaves(f: Callable[..., Tensor], z: Tensor, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns the leaf tensors, parameters above all, that f(z, *args) uses and that require gradients.

    Found by walking the graph of one evaluation. An adjoint that evaluates f anew in the backward pass must name them
    as inputs of its `autograd.Function`, or their gradients would bypass DDP, hooks and `autograd.grad`.

    Raises:
        AdjointError: if f uses a tensor that was computed elsewhere and requires gradients.

    """
    with torch.enable_grad(), fresh_casts(), uncached_weights():
        inputs = [t.detach().requires_grad_(t.requires_grad) for t in args]
        z = z.detach().requires_grad_()
        before = z.view_as(z).grad_fn
        assert before is not None
        out = f(z, *inputs)
    known = {id(t) for t in (z, *inputs)}
    found: dict[int, Tensor] = {}
    for node in _walk(out.grad_fn):
        # Only leaves' accumulators carry a variable; they are no operations and have no place in the order.
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            if id(leaf) not in known:
                found[id(leaf)] = leaf
        elif node._sequence_nr() <= before._sequence_nr():
            raise AdjointError(
                f"f uses a tensor that was computed outside of it (by {node.name()}) and requires gradients. This "
                "adjoint evaluates f anew in the backward pass: hand that tensor to odeint or fixed_point in *args."
            )
    return tuple(found.values())


def depends_on_others(fz: Tensor, z: Tensor) -> bool:
    """Returns whether the graph of fz leads to anything but z that takes gradients."""
    return any(getattr(node, "variable", z) is not z for node in _walk(fz.grad_fn))


def _walk(root: Node | None) -> Iterator[Node]:
    """Yields each node of a graph once."""
    seen: set[Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)
