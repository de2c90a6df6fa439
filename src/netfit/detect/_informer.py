"""Informer as a one-step forecaster, and the semi-supervised loss."""

import torch
from torch import Tensor, nn

from netfit.detect._transformer import DecoderLayer, EncoderLayer, positions
from netfit.errors import ConfigError

__all__ = ["InformerForecaster", "SemiSupervisedMSE"]


class InformerForecaster(nn.Module):
    """Forecasts the last row of a window from the rows before it.

    "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting" (Zhou et al., 2021), as DeepHYDRA
    uses it; no calendar features, since rows carry no date.

    Args:
        features: columns of a row.
        window: rows, the forecast one included.
        label: rows the decoder sees before the forecast one; half of the window when None.
        width: features of a token.
        hidden: features inside the networks.
        heads: of the attention.
        encoder_layers: with a convolution that halves the tokens between them.
        decoder_layers: one after the other.
        factor: of the sparse attention.
        dropout: share.

    Raises:
        ConfigError: the sizes do not fit each other.

    Example:
        >>> forecast = InformerForecaster(features=6, window=17, width=32, hidden=64)(torch.rand(2, 17, 6))
        >>> forecast.shape
        torch.Size([2, 6])
    """

    def __init__(
        self, features: int, window: int = 17, label: int | None = None, width: int = 64, hidden: int = 256,
        heads: int = 4, encoder_layers: int = 1, decoder_layers: int = 1, factor: int = 5, dropout: float = 0.05,
    ) -> None:  # fmt: skip
        super().__init__()
        label = (window - 1) // 2 if label is None else label
        if not 1 <= label < window or width % heads or min(features, hidden, encoder_layers, decoder_layers) < 1:
            raise ConfigError(
                f"window={window}, label={label}, width={width}, heads={heads}: label rows lie inside of the window, "
                "and heads share the width evenly"
            )
        self.window, self.label = window, label
        self.place: Tensor
        self.encoder_in, self.decoder_in = _embedding(features, width), _embedding(features, width)
        self.register_buffer("place", positions(window, width), persistent=False)
        sizes = (width, heads, hidden, dropout, factor, True)
        self.encoder = nn.ModuleList([EncoderLayer(*sizes) for _ in range(encoder_layers)])
        self.halve = nn.ModuleList([_Halve(width) for _ in range(encoder_layers - 1)])
        self.decoder = nn.ModuleList([DecoderLayer(*sizes) for _ in range(decoder_layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.out = nn.Linear(width, features)

    def forward(self, x: Tensor) -> Tensor:
        """Windows (batch, window, features), whose last row is not looked at, to forecasts of it (batch, features)."""
        past = x[:, :-1]
        memory = self.encoder_in(past.transpose(1, 2)).transpose(1, 2) + self.place[: self.window - 1]
        for i, layer in enumerate(self.encoder):
            memory = layer(memory)
            if i < len(self.halve):
                memory = self.halve[i](memory)
        memory = self.norms[0](memory)
        known = torch.cat([past[:, -self.label :], torch.zeros_like(past[:, :1])], 1)
        y = self.decoder_in(known.transpose(1, 2)).transpose(1, 2) + self.place[: self.label + 1]
        for layer in self.decoder:
            y = layer(y, memory)
        out: Tensor = self.out(self.norms[1](y[:, -1]))
        return out

    def error(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error (batch, features) of the last rows, and what was expected of them."""
        forecast = self(x)
        return (forecast - x[:, -1]) ** 2, forecast

    def loss(self, x: Tensor, epoch: int) -> Tensor:
        """Squared error (batch, features)."""
        return self.error(x)[0]


def _embedding(features: int, width: int) -> nn.Conv1d:
    return nn.Conv1d(features, width, 3, padding=1, padding_mode="circular")


class _Halve(nn.Module):
    """The distilling layer: a convolution, then the larger of neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution, self.norm = (
            nn.Conv1d(width, width, 3, padding=1, padding_mode="circular"),
            nn.BatchNorm1d(width),
        )
        self.act, self.pool = nn.ELU(), nn.MaxPool1d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.act(self.norm(self.convolution(x.transpose(1, 2))))).transpose(1, 2)
        return out


class SemiSupervisedMSE(nn.Module):
    """Squared error that wants a bad forecast where rows are known to be abnormal.

    With f the share of abnormal rows in a window and e its squared error: (1 - f) e + mu f tanh(1 / (e + 1e-6)).

    Args:
        mu: weight of the second part.

    Raises:
        ConfigError: mu is not positive.

    Example:
        >>> loss = SemiSupervisedMSE(mu=0.1)
        >>> error = torch.tensor([0.5, 0.5])
        >>> [round(float(v), 3) for v in loss(error, torch.tensor([0.0, 1.0]))]
        [0.5, 0.096]
    """

    def __init__(self, mu: float) -> None:
        super().__init__()
        if not mu > 0:
            raise ConfigError(f"mu={mu!r}: choose a positive weight")
        self.mu = mu

    def forward(self, error: Tensor, share: Tensor) -> Tensor:
        """Squared errors, and shares of abnormal rows that broadcast with them, to losses of the same shape."""
        return (1 - share) * error + self.mu * share * torch.tanh(1 / (error + 1e-6))
