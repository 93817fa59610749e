"""Deep equilibrium transformers (Bai, Kolter & Koltun 2019, arXiv 1909.01377): decoders whose hidden sequence is the
equilibrium of one causal cell.
"""

from typing import Unpack

import torch
from torch import Tensor

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.errors import StructureError
from deqzoo.models.deq import PAPER
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig, TransformerCell
from deqzoo.models.generation import Decoder, TextState
from deqzoo.models.registry import TextRuntime, register
from deqzoo.models.text_net import TextNet
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.models.transformer_parts import KeysValues, Masks, Memory
from deqzoo.nn import ImplicitModule
from deqzoo.solvers import Anderson, FixedPointSolver, Picard

# Each iterate of plain iteration is causal, not only the equilibrium: what Anderson mixes depends on all positions. The
# damping ends the small cycles that some sequences fall into; a few need patience.
_PICARD = Picard(rtol=1e-3, max_steps=200, damping=0.6, patience=100)
_IMPLICIT = Implicit(solver=Anderson(rtol=1e-2, max_steps=20))


class DEQTransformer(TextNet):
    """A language model whose hidden sequence is the equilibrium of a causal cell.

    Args:
        config: its sizes.
        vocab_size: tokens there are.
        solver: how the equilibrium is found.
        adjoint: how gradients pass it.

    """

    def __init__(
        self,
        config: DEQTransformerConfig,
        *,
        vocab_size: int,
        solver: FixedPointSolver = _PICARD,
        adjoint: Adjoint = _IMPLICIT,
    ) -> None:
        super().__init__(
            vocab_size=vocab_size,
            width=config.width,
            context=config.context,
            blocks=config.blocks,
            dropout=config.dropout,
            cutoffs=config.cutoffs,
        )
        self.config = config
        self.equilibrium = ImplicitModule(TransformerCell(config), solver=solver, adjoint=adjoint)

    @property
    def cell(self) -> TransformerCell:
        """The map whose equilibrium is solved for."""
        cell = self.equilibrium.cell
        assert isinstance(cell, TransformerCell)
        return cell

    def hidden(self, x: Tensor, memory: Memory | None, masks: Masks) -> Tensor:
        z = self.equilibrium(x, self._past(memory, len(x)), masks)
        assert isinstance(z, Tensor)
        return z

    def recall(self, h: Tensor, x: Tensor, memory: Memory | None, masks: Masks) -> Memory | None:
        if not self.config.memory:
            return None
        streams = self.cell.entering(h, x, self._past(memory, len(x)), masks)
        longer = streams if not memory else tuple(torch.cat(pair, dim=1) for pair in zip(memory, streams, strict=True))
        return tuple(stream[:, -self.config.memory :] for stream in longer)

    def begin(self, tokens: Tensor, *, warm: bool) -> TextState:
        return Decoder(self, tokens, warm=warm)

    @torch.no_grad()
    def residual(self, tokens: Tensor, z: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, T) ‖f(z) − z‖ / ‖f(z)‖ of each position by itself, by one evaluation, without dropout.

        A solve counts a sequence as one; this tells which of its positions have converged.

        Args:
            tokens: (B, T) int64.
            z: (B, T, width) what a solve for them returned.
            memory: that the solve saw.

        """
        past = self.cell.remembered(memory) if memory else ()
        fz = self.cell(z, self.embed(tokens), past, ()).to(z.dtype)
        return torch.linalg.vector_norm(fz - z, dim=-1) / torch.linalg.vector_norm(fz, dim=-1)

    def _past(self, memory: Memory | None, batch: int) -> tuple[KeysValues, ...]:
        if not memory:
            return ()
        want = (batch, self.config.width)
        if len(memory) != self.config.blocks or any((len(h), h.shape[-1]) != want or h.ndim != 3 for h in memory):
            raise StructureError(
                f"Found a memory of shapes {[tuple(h.shape) for h in memory]}. This network remembers "
                f"({batch}, M, {self.config.width}) for each of its {self.config.blocks} blocks: pass what `score` "
                "returned for the segment before, of the same batch, or None."
            )
        if memory[0].shape[1] > self.config.memory:
            raise StructureError(
                f"Found a memory of {memory[0].shape[1]} positions. This network keeps {self.config.memory}: pass "
                "what its own `score` returned, or None."
            )
        return self.cell.remembered(memory)


@register(task="text-generation", dataset="tiny-shakespeare", recipe="deq-lm-shakespeare-tiny", paper=PAPER)
def deq_lm_shakespeare_tiny(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """One equilibrium of two blocks of width 176 over characters, of less than 0.8 million parameters."""
    config = DEQTransformerConfig(width=176, heads=4, hidden=480, blocks=2, context=256)
    return DEQTransformer(config, **{"vocab_size": TEXT_SPECS["tiny-shakespeare"].vocab_size, **runtime})


@register(task="text-generation", dataset="tiny-shakespeare", recipe="deq-lm-shakespeare", paper=PAPER)
def deq_lm_shakespeare(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """One equilibrium of two blocks of width 640 over characters, of less than 10.65 million parameters."""
    config = DEQTransformerConfig(width=640, heads=10, hidden=1728, blocks=2, context=256, dropout=0.2)
    return DEQTransformer(config, **{"vocab_size": TEXT_SPECS["tiny-shakespeare"].vocab_size, **runtime})


@register(task="text-generation", dataset="ptb", recipe="deq-lm-ptb-tiny", paper=PAPER)
def deq_lm_ptb_tiny(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """One equilibrium of two blocks of width 176 over words, of 2.5 million parameters, 1.8 of them its table's."""
    config = DEQTransformerConfig(width=176, heads=4, hidden=480, blocks=2, context=256, dropout=0.2)
    return DEQTransformer(config, **{"vocab_size": TEXT_SPECS["ptb"].vocab_size, **runtime})


@register(task="text-generation", dataset="ptb", recipe="deq-lm-ptb", paper=PAPER)
def deq_lm_ptb(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """One equilibrium of two blocks over words, with memory, of less than 24 million parameters."""
    config = DEQTransformerConfig(width=800, heads=10, hidden=2176, blocks=2, context=128, memory=128, dropout=0.4)
    return DEQTransformer(config, **{"vocab_size": TEXT_SPECS["ptb"].vocab_size, **runtime})


@register(task="text-generation", dataset="wikitext-103", recipe="deq-lm-wikitext103", paper=PAPER)
def deq_lm_wikitext103(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """One equilibrium of three blocks over words, with memory and an adaptive table: the 98-million class."""
    config = DEQTransformerConfig(
        width=704,
        heads=11,
        hidden=10_496,
        blocks=3,
        context=150,
        memory=150,
        dropout=0.05,
        cutoffs=(20_000, 40_000, 200_000),
    )
    return DEQTransformer(config, **{"vocab_size": TEXT_SPECS["wikitext-103"].vocab_size, **runtime})
