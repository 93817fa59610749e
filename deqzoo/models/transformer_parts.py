"""What transformers are made of: rotary positions, causal attention over past and present, gated layers, blocks."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeysValues: TypeAlias = tuple[Tensor, Tensor]
"""Keys, rotated to their positions, and values of S past positions, (B, heads, S, width / heads) each."""

Memory: TypeAlias = tuple[Tensor, ...]
"""For each block, what entered it at the last positions before: (B, M, width), without a graph."""

Masks: TypeAlias = tuple[tuple[Tensor, ...], ...]
"""For each block, the dropout masks (B, 1, width) of its branches."""

_ROTARY_BASE = 10_000.0
_BRANCH_GAIN = 0.5


class Rotary(nn.Module):
    """Rotates pairs of features by angles that grow with the position, so that inner products see only distances.

    After Su et al. 2021, "RoFormer: Enhanced transformer with rotary position embedding".

    Args:
        size: features of a head, an even number.
        positions: how many there are at most.

    """

    def __init__(self, size: int, positions: int) -> None:
        super().__init__()
        frequencies = _ROTARY_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
        # Known from the sizes alone: no part of the weights.
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Returns x (B, heads, T, size), whose positions are `first`, `first` + 1, …, rotated."""
        cos = self.cos[first : first + x.shape[2]].to(x.dtype)
        sin = self.sin[first : first + x.shape[2]].to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last T of S positions: q (B, H, T, D), k and v (B, H, S, D) -> (B, H, T, D)."""
    length, total = q.shape[2], k.shape[2]
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        # Several times faster there than the kernels that torch chooses from.
        later = torch.full((length, total), -torch.inf, dtype=q.dtype).triu(1 + total - length)
        logits = torch.baddbmm(later, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=q.shape[3] ** -0.5)
        return torch.bmm(logits.softmax(-1), v.flatten(0, 1)).unflatten(0, q.shape[:2])
    if length == total:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # A single position sees everything: it needs no mask.
    mask = torch.ones(length, total, dtype=torch.bool, device=q.device).tril(total - length) if length > 1 else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class CausalAttention(nn.Module):
    """Attention of each position to itself and everything before it, with normalised queries and keys.

    Normalised (Henry et al. 2020, "Query-key normalization for transformers"), the attention's logits are bounded by a
    learned gain, whatever the weights become: they cannot run away, and with them the slope of the map.

    Args:
        width: features of a position.
        heads: that share them.
        positions: how many there are at most, past ones included.

    """

    def __init__(self, width: int, heads: int, *, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_q = nn.LayerNorm(width // heads, bias=False)
        self.norm_k = nn.LayerNorm(width // heads, bias=False)
        self.rotary = Rotary(width // heads, positions)

    def forward(self, x: Tensor, past: KeysValues | None) -> Tensor:
        """Returns (B, T, width) for x (B, T, width), whose positions follow those of `past`."""
        q, k, v = (self._split(part) for part in self.qkv(x).chunk(3, dim=-1))
        first = 0 if past is None else past[0].shape[2]
        q, k = self.rotary(self.norm_q(q), first).to(v.dtype), self.rotary(self.norm_k(k), first).to(v.dtype)
        if past is not None:
            k, v = torch.cat((past[0].to(k.dtype), k), dim=2), torch.cat((past[1].to(v.dtype), v), dim=2)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))

    def keys_values(self, x: Tensor, first: int) -> KeysValues:
        """Returns what later positions attend to of x (B, T, width), whose first position is `first`."""
        k, v = F.linear(x, self.qkv.weight[x.shape[2] :]).chunk(2, dim=-1)
        v = self._split(v)
        return self.rotary(self.norm_k(self._split(k)), first).to(v.dtype), v

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GatedLayer(nn.Module):
    """x ↦ W (SiLU(A x) ⊙ B x) (Shazeer 2020, "GLU variants improve transformer").

    Args:
        width: features of a position.
        hidden: features in between.

    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden, bias=False)
        self.reduce = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.expand(x).chunk(2, dim=-1)
        return self.reduce(F.silu(gate) * value)


class Block(nn.Module):
    """h ↦ h + norm(attention(norm(h))), then h ↦ h + norm(gated(norm(h))).

    With a norm on both sides (Ding et al. 2021, "CogView", section 2.4) the size of what a branch adds is set by the
    learned gain of its last norm alone, whatever its weights become in training. The gains start small.

    Args:
        width: features of a position.
        heads: of the attention.
        hidden: features inside the gated layer.
        positions: how many there are at most, past ones included.

    """

    def __init__(self, width: int, heads: int, hidden: int, *, positions: int) -> None:
        super().__init__()
        self.attention_in = nn.LayerNorm(width, bias=False)
        self.attention = CausalAttention(width, heads, positions=positions)
        self.attention_out = nn.LayerNorm(width, bias=False)
        self.gated_in = nn.LayerNorm(width, bias=False)
        self.gated = GatedLayer(width, hidden)
        self.gated_out = nn.LayerNorm(width, bias=False)
        for norm in (self.attention_out, self.gated_out):
            nn.init.constant_(norm.weight, _BRANCH_GAIN)

    def forward(self, h: Tensor, past: KeysValues | None = None, masks: tuple[Tensor, ...] = ()) -> Tensor:
        """(B, T, width) -> (B, T, width).

        Args:
            h: the residual stream.
            past: keys and values of earlier positions, None where there are none.
            masks: (B, 1, width) of dropout for both branches, or none at all.

        """
        y = self.attention_out(self.attention(self.attention_in(h), past))
        h = h + (y * masks[0] if masks else y)
        y = self.gated_out(self.gated(self.gated_in(h)))
        return h + (y * masks[1] if masks else y)

    def keys_values(self, h: Tensor, first: int) -> KeysValues:
        """Returns what later positions attend to of the stream h (B, T, width) that enters here."""
        return self.attention.keys_values(self.attention_in(h), first)
