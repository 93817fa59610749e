"""Explicit transformers of the parts that equilibrium transformers are made of: what those are compared with."""

from dataclasses import dataclass
from typing import Unpack

from torch import Tensor, nn

from deqzoo.errors import StructureError
from deqzoo.models.generation import Anew, TextState
from deqzoo.models.paper import Paper
from deqzoo.models.registry import TextSizes, register
from deqzoo.models.text_net import TextNet
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.models.transformer_parts import Block, Masks, Memory

PAPER = Paper(
    key="vaswani2017attention",
    title="Attention Is All You Need",
    authors="Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and "
    "Jones, Llion and Gomez, Aidan N. and Kaiser, Lukasz and Polosukhin, Illia",
    venue="Advances in Neural Information Processing Systems",
    year=2017,
    arxiv="1706.03762",
)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The sizes of an explicit transformer.

    Attributes:
        width: features of a position.
        heads: of the attention; each has an even share of the width.
        hidden: features inside the gated layers.
        context: the longest sequence.
        depth: blocks that a text passes.
        distinct: blocks with weights of their own, passed in turns: `depth` for an ordinary transformer, 1 for
            one block that is passed `depth` times.
        dropout: probability to drop a feature of the embedding, of a branch or of the output, in all positions.

    """

    width: int
    heads: int
    hidden: int
    context: int
    depth: int
    distinct: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.distinct < 1 or self.depth % self.distinct:
            raise ValueError(
                f"Got distinct={self.distinct} blocks for depth={self.depth}. They are passed in turns, each equally "
                "often: choose a number that divides the depth."
            )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"Got width={self.width} for heads={self.heads}. Each head rotates pairs of features: choose a width "
                f"that is a multiple of {2 * self.heads}."
            )

    @property
    def memory(self) -> int:
        """Positions that are remembered: none."""
        return 0


class Transformer(TextNet):
    """A language model whose hidden sequence is what comes out of a number of blocks.

    Args:
        config: its sizes.
        vocab_size: tokens there are.

    """

    def __init__(self, config: TransformerConfig, *, vocab_size: int) -> None:
        super().__init__(
            vocab_size=vocab_size,
            width=config.width,
            context=config.context,
            blocks=config.distinct,
            dropout=config.dropout,
        )
        self.config = config
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.hidden, positions=config.context) for _ in range(config.distinct)
        )

    def hidden(self, x: Tensor, memory: Memory | None, masks: Masks) -> Tensor:
        if memory:
            raise StructureError(
                f"Found a memory of {memory[0].shape[1]} positions. An explicit transformer keeps none: leave it out, "
                "or take an equilibrium transformer."
            )
        for i in range(self.config.depth):
            which = i % self.config.distinct
            x = self.blocks[which](x, None, masks[which] if masks else ())
        return x

    def recall(self, h: Tensor, x: Tensor, memory: Memory | None, masks: Masks) -> Memory | None:
        return None

    def begin(self, tokens: Tensor, *, warm: bool) -> TextState:
        return Anew(self, tokens)


# The sizes of deq-lm-shakespeare-tiny and deq-lm-ptb-tiny: as many parameters, but for the vector that carries their
# state. Tied blocks are passed as often as their recipes let the solver evaluate them in most of the training.
_TINY = {"width": 176, "heads": 4, "hidden": 480, "context": 256, "distinct": 2}


@register(
    task="text-generation", dataset="tiny-shakespeare", recipe="baselines/transformer-shakespeare-tiny", paper=PAPER
)
def transformer_shakespeare_tiny(**sizes: Unpack[TextSizes]) -> Transformer:
    """An explicit baseline: two blocks of width 176 over characters, of less than 0.8 million parameters."""
    config = TransformerConfig(**_TINY, depth=2)
    return Transformer(config, **{"vocab_size": TEXT_SPECS["tiny-shakespeare"].vocab_size, **sizes})


@register(
    task="text-generation",
    dataset="tiny-shakespeare",
    recipe="baselines/transformer-shakespeare-tiny-tied",
    paper=PAPER,
)
def transformer_shakespeare_tiny_tied(**sizes: Unpack[TextSizes]) -> Transformer:
    """An explicit baseline of tied weights: two blocks of width 176 over characters, passed eight times."""
    config = TransformerConfig(**_TINY, depth=16)
    return Transformer(config, **{"vocab_size": TEXT_SPECS["tiny-shakespeare"].vocab_size, **sizes})


@register(task="text-generation", dataset="ptb", recipe="baselines/transformer-ptb-tiny", paper=PAPER)
def transformer_ptb_tiny(**sizes: Unpack[TextSizes]) -> Transformer:
    """An explicit baseline: two blocks of width 176 over words, of 2.5 million parameters."""
    config = TransformerConfig(**_TINY, depth=2, dropout=0.2)
    return Transformer(config, **{"vocab_size": TEXT_SPECS["ptb"].vocab_size, **sizes})


@register(task="text-generation", dataset="ptb", recipe="baselines/transformer-ptb-tiny-tied", paper=PAPER)
def transformer_ptb_tiny_tied(**sizes: Unpack[TextSizes]) -> Transformer:
    """An explicit baseline of tied weights: two blocks of width 176 over words, passed eight times."""
    config = TransformerConfig(**_TINY, depth=16, dropout=0.2)
    return Transformer(config, **{"vocab_size": TEXT_SPECS["ptb"].vocab_size, **sizes})
