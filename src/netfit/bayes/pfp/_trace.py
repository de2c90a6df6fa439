"""The pass as an ordinary torch module with its weights as buffers: what other compilers take."""

from typing import Any

import torch
from torch import Tensor, nn

from netfit.bayes._gaussian import Gaussian

from ._module import PFP, moments

__all__ = ["Answer", "Frozen"]


class Frozen(nn.Module):
    """The weights' moments of now; returns (mean, var) or (mean, var, cov)."""

    def __init__(self, pfp: PFP) -> None:
        super().__init__()
        self.program, self.head, self.scale = pfp.program, pfp.head, pfp.scale
        self._random: dict[str, bool] = {}
        for name, value in pfp.weights().items():
            self._random[name] = isinstance(value, Gaussian)
            for role, tensor in zip(("mean", "var"), value if isinstance(value, Gaussian) else (value,), strict=False):
                if tensor is not None:
                    self.register_buffer(f"{role}_{name}", tensor.detach().clone())
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(batch, ...) -> the logits' moments."""
        weights = {
            name: Gaussian(self._get("mean", name), self._get("var", name)) if random else self._get("mean", name)
            for name, random in self._random.items()
        }
        out = moments(self.program, self.head, weights, x, self.scale)
        var = torch.zeros_like(out.mean) if out.var is None else out.var
        return (out.mean, var) if out.cov is None else (out.mean, var, out.cov)

    def _get(self, role: str, name: str) -> Any:
        return getattr(self, f"{role}_{name}", None)


class Answer(nn.Module):
    """Moments of the logits, and the uncertainties of a fixed number of draws from them.

    With a covariance, logits are drawn as mean + L e, where L is built column by column: ONNX has no Cholesky.
    """

    def __init__(self, frozen: Frozen, classes: int, samples: int) -> None:
        super().__init__()
        self.frozen, self.classes = frozen, classes
        self.register_buffer("noise", torch.randn(classes, samples, generator=torch.Generator().manual_seed(0)))
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(batch, ...) -> moments, probs, total, aleatoric, epistemic."""
        out = self.frozen(x)
        mean, var = out[:2]
        noise: Any = self.noise
        drawn = var.sqrt()[:, :, None] * noise if len(out) == 2 else self._factor(out[2]) @ noise
        logits = mean[:, :, None] + drawn
        log = torch.log_softmax(logits, 1)
        p = log.exp()
        aleatoric = -(p * log).sum(1).mean(1)
        probs = p.mean(2)
        total = -(probs * probs.clamp_min(1e-38).log()).sum(1)
        return (*out, probs, total, aleatoric, (total - aleatoric).clamp_min(0))

    def _factor(self, cov: Tensor) -> Tensor:
        """Cholesky factors of (batch, n, n) by n rank-one steps."""
        jitter = 1e-6 * cov.diagonal(dim1=1, dim2=2).amax(1)[:, None]
        rest, columns = cov, []
        for i in range(self.classes):
            pivot = (rest[:, i, i : i + 1] + jitter).clamp_min(1e-20).sqrt()
            below = (torch.arange(self.classes) >= i).to(cov.dtype)
            column = rest[:, :, i] / pivot * below
            columns.append(column)
            rest = rest - column[:, :, None] * column[:, None, :]
        return torch.stack(columns, 2)
