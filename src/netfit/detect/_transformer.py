"""Parts of the forecasters. Projections are `nn.Linear`, so that every policy of `netfit.surgery` finds them."""

import math

import torch
from torch import Tensor, nn

__all__ = ["Attention", "DecoderLayer", "EncoderLayer", "positions"]


class Attention(nn.Module):
    """Multi-head attention; with `factor`, only the queries that are most selective look, the others take the mean.

    The latter is ProbSparse attention of "Informer: Beyond Efficient Transformer for Long Sequence Time-Series
    Forecasting" (Zhou et al., 2021). Windows are short here, so selectivity is measured on all keys and not on a
    sample: the same rows give the same scores.

    Args:
        width: features of a token.
        heads: that share them.
        factor: ``factor * ceil(ln queries)`` queries look; 0 lets all of them.
    """

    def __init__(self, width: int, heads: int, factor: int = 0) -> None:
        super().__init__()
        self.heads, self.factor = heads, factor
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(batch, queries, width) and (batch, keys, width) to (batch, queries, width)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(memory), self.value(memory))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        looked = scores.softmax(-1) @ v
        queries = q.shape[2]
        looking = min(queries, self.factor * math.ceil(math.log(max(queries, 2))))
        if self.factor and looking < queries:
            selective = scores.amax(-1) - scores.mean(-1)
            last = selective.topk(looking, dim=-1).values[..., -1:]
            looked = torch.where((selective >= last)[..., None], looked, v.mean(2, keepdim=True))
        out: Tensor = self.out(looked.transpose(1, 2).flatten(2))
        return out


def _feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Self-attention and a network for each token.

    Args:
        width: features of a token.
        heads: of the attention.
        hidden: features inside the network.
        dropout: share.
        factor: of `Attention`.
        norm: whether sums are normalised.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, factor: int, norm: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, factor)
        self.network = _feed_forward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width) if norm else nn.Identity() for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width), unchanged in shape."""
        x = self.norms[0](x + self.dropout(self.attention(x, x)))
        out: Tensor = self.norms[1](x + self.dropout(self.network(x)))
        return out


class DecoderLayer(nn.Module):
    """An encoder layer that also looks at a memory.

    Args:
        width: features of a token.
        heads: of both attentions.
        hidden: features inside the network.
        dropout: share.
        factor: of the `Attention` to itself.
        norm: whether sums are normalised.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, factor: int, norm: bool) -> None:
        super().__init__()
        self.attention, self.cross = Attention(width, heads, factor), Attention(width, heads)
        self.network = _feed_forward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width) if norm else nn.Identity() for _ in range(3)])

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(batch, tokens, width) and the memory, to the shape of the first."""
        x = self.norms[0](x + self.dropout(self.attention(x, x)))
        x = self.norms[1](x + self.dropout(self.cross(x, memory)))
        out: Tensor = self.norms[2](x + self.dropout(self.network(x)))
        return out


def positions(tokens: int, width: int) -> Tensor:
    """Sines and cosines that tell tokens apart, (tokens, width)."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(tokens)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]
