"""TranAD."""

import torch
from torch import Tensor, nn

from netfit.detect._transformer import DecoderLayer, EncoderLayer, positions
from netfit.errors import ConfigError

__all__ = ["TranAD"]


class TranAD(nn.Module):
    """Reconstructs the last row of a window twice, the second time knowing where the first one failed.

    "TranAD: Deep Transformer Networks for Anomaly Detection in Multivariate Time Series Data" (Tuli et al., 2022), in
    the sizes of DeepHYDRA: as many heads as features, no normalisation, 64 features inside.

    Args:
        features: columns of a row, scaled to [0, 1].
        window: rows.
        hidden: features inside the networks.
        dropout: share.

    Raises:
        ConfigError: a size is below 1.

    Example:
        >>> first, second = TranAD(features=6)(torch.rand(2, 10, 6))
        >>> first.shape, sum(p.numel() for p in TranAD(102).parameters())
        (torch.Size([2, 6]), 936450)
    """

    def __init__(self, features: int, window: int = 10, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        if min(features, window, hidden) < 1:
            raise ConfigError(f"features={features}, window={window}, hidden={hidden}: choose 1 or more")
        width = 2 * features
        self.window, self.scale = window, features**0.5
        self.register_buffer("place", positions(window, width), persistent=False)
        self.encoder = EncoderLayer(width, features, hidden, dropout, factor=0, norm=False)
        self.decoders = nn.ModuleList([DecoderLayer(width, features, hidden, dropout, 0, norm=False) for _ in range(2)])
        self.out = nn.Linear(width, features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (batch, window, features) to both reconstructions of their last rows, (batch, features) each."""
        first = self._phase(0, x, torch.zeros_like(x))
        return first, self._phase(1, x, (first[:, None] - x) ** 2)

    def _phase(self, number: int, x: Tensor, focus: Tensor) -> Tensor:
        memory = self.encoder(torch.cat([x, focus], 2) * self.scale + self.place)
        target = torch.cat([x[:, -1:], x[:, -1:]], 2)
        out: Tensor = torch.sigmoid(self.out(self.decoders[number](target, memory)))[:, 0]
        return out

    def error(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error (batch, features) of the last rows, mean of both phases, and what was expected of them."""
        first, second = self(x)
        last = x[:, -1]
        return ((first - last) ** 2 + (second - last) ** 2) / 2, second

    def loss(self, x: Tensor, epoch: int) -> Tensor:
        """Squared error (batch, features) as trained: the second phase counts more from epoch to epoch (from 1)."""
        first, second = self(x)
        last = x[:, -1]
        return (first - last) ** 2 / epoch + (1 - 1 / epoch) * (second - last) ** 2
