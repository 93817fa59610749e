"""What equilibrium transformers are made of: their sizes and the cell."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deqzoo.models.transformer_parts import Block, KeysValues, Masks, Memory
from deqzoo.nn import Cell


@dataclass(frozen=True, kw_only=True)
class DEQTransformerConfig:
    """The sizes of an equilibrium transformer.

    Attributes:
        width: features of a position.
        heads: of the attention; each has an even share of the width.
        hidden: features inside the gated layers.
        blocks: attention and gated layers in one evaluation of the cell.
        context: the longest sequence that is solved at once.
        memory: positions before it that are seen through their equilibria, as in Transformer-XL (Dai et al. 2019).
        dropout: probability to drop a feature of the embedding, of a branch or of the output, in all positions of a
            sequence and for a whole solve.
        cutoffs: the first token of each cluster of rarer tokens; see `AdaptiveTable`. Empty for a single table.

    """

    width: int
    heads: int
    hidden: int
    context: int
    blocks: int = 1
    memory: int = 0
    dropout: float = 0.0
    cutoffs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("heads", 1), ("hidden", 1), ("context", 1), ("blocks", 1), ("memory", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"Got {name}={getattr(self, name)}. Sizes start at {least}: use {name}={least} or more."
                )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"Got width={self.width} for heads={self.heads}. Each head rotates pairs of features: choose a width "
                f"that is a multiple of {2 * self.heads}."
            )
        if list(self.cutoffs) != sorted(set(self.cutoffs)) or any(cutoff < 1 for cutoff in self.cutoffs):
            raise ValueError(
                f"Got cutoffs={self.cutoffs}. They divide the tokens into clusters of growing rarity: give positive "
                "numbers in growing order, such as (20_000, 40_000)."
            )
        if self.width < 4 ** len(self.cutoffs):
            raise ValueError(
                f"Got {len(self.cutoffs)} cutoffs for width={self.width}. The vectors of each further cluster are four "
                f"times narrower: use a width of {4 ** len(self.cutoffs)} or more, or fewer cutoffs."
            )


class TransformerCell(Cell):
    """z ↦ norm(blocks(a ⊙ z + x)), with the norm of each position to itself and a learned vector a.

    The injection x joins the residual stream, so that queries, keys, values and the gated layer all see it at no cost.
    The norm puts every state on a sphere per position: the map takes a ball into itself, so that an equilibrium exists
    whatever the weights are (Brouwer), and it divides the slope of the blocks by the size of the stream.

    Args:
        config: its sizes.

    """

    def __init__(self, config: DEQTransformerConfig) -> None:
        super().__init__()
        positions = config.context + config.memory
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.hidden, positions=positions) for _ in range(config.blocks)
        )
        self.carry = nn.Parameter(torch.ones(config.width))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)

    def forward(self, z: Tensor, x: Tensor, past: tuple[KeysValues, ...], masks: Masks) -> Tensor:
        """Returns f(z) (B, T, width).

        Args:
            z: (B, T, width) the state.
            x: (B, T, width) the injection.
            past: of each block, keys and values of the positions before; empty where there are none.
            masks: of dropout; empty for ones.

        """
        h = self.carry * z + x
        for i, block in enumerate(self.blocks):
            h = block(h, past[i] if past else None, masks[i] if masks else ())
        return self.norm(h)

    def initial_state(self, x: Tensor, past: tuple[KeysValues, ...], masks: Masks) -> Tensor:
        """Returns zeros in the dtype of the weights, whatever autocast made of the injection."""
        return torch.zeros(x.shape, dtype=self.carry.dtype, device=x.device)

    def entering(self, z: Tensor, x: Tensor, past: tuple[KeysValues, ...], masks: Masks) -> Memory:
        """Returns what enters each block when the state is z: (B, T, width) each."""
        h = self.carry * z + x
        streams = [h]
        for i, block in enumerate(list(self.blocks)[:-1]):
            h = block(h, past[i] if past else None, masks[i] if masks else ())
            streams.append(h)
        return tuple(streams)

    def keys_values(self, z: Tensor, x: Tensor, past: tuple[KeysValues, ...]) -> tuple[KeysValues, ...]:
        """Returns what later positions attend to, in each block, of positions whose state is z."""
        first = past[0][0].shape[2] if past else 0
        return self._attended(self.entering(z, x, past, ()), first)

    def remembered(self, memory: Memory) -> tuple[KeysValues, ...]:
        """Returns the keys and values of a memory, with the gradient of the weights that make them."""
        return self._attended(memory, 0)

    def _attended(self, streams: Memory, first: int) -> tuple[KeysValues, ...]:
        attended = []
        for block, h in zip(self.blocks, streams, strict=True):
            assert isinstance(block, Block)
            attended.append(block.keys_values(h, first))
        return tuple(attended)
