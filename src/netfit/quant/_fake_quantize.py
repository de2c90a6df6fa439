"""The quantizer of one tensor of a network: format, observer, and the state that goes with them."""

import math
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.quant._affine import MIN_SCALE, Affine, fake_quantize
from netfit.quant._observers import Observer, check_observer, merged_range, observed_range

Mode = Literal["observe", "quantize", "frozen"]


class FakeQuantize(nn.Module):
    """Fake-quantize one tensor of a network: its weight, an input or an output.

    Three modes. "observe" collects the range and returns `x` as it is. "quantize" returns the quantized `x`;
    in training the range goes on following `x`. "frozen" keeps scale and zero point, as an exported network
    does. `for_weight` and `for_activation` build the two kinds that integer runtimes execute.

    Scale and zero point are empty until the first observation, and take the shape of a loaded state.

    Args:
        format: the number format.
        observer: "minmax" (extremes so far), or a running mean over tensors of their extremes
            ("moving_average"), 99.99 % percentiles ("percentile") or least-squares ranges ("mse").
        recompute: the range is that of the present tensor alone, found anew in each forward: for weights.
        learned: `scale` is a parameter, started by the observer and then trained ("Learned Step Size
            Quantization", Esser et al., 2020). Observe once before the first optimizer step.

    Raises:
        ConfigError: the observer is not known.

    Example:
        >>> act = FakeQuantize.for_activation()
        >>> _ = act(torch.tensor([0.0, 2.0, 5.1]))
        >>> act.freeze()(torch.tensor([1.025, 7.0]))
        tensor([1.0200, 5.1000])
    """

    scale: Tensor
    zero_point: Tensor
    lo: Tensor
    hi: Tensor
    seen: Tensor
    state: Tensor

    def __init__(
        self, format: Affine, observer: Observer = "minmax", *, recompute: bool = False, learned: bool = False
    ) -> None:
        super().__init__()
        check_observer(observer)
        self.format, self.observer = format, observer
        self.recompute, self.learned = recompute, learned
        if learned:
            self.scale = nn.Parameter(torch.empty(0))
        else:
            self.register_buffer("scale", torch.empty(0))
        self.register_buffer("zero_point", torch.empty(0, dtype=torch.int32))
        self.register_buffer("lo", torch.empty(0))
        self.register_buffer("hi", torch.empty(0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        # The mode as a tensor travels with the state: a loaded quantizer must not fall back to observing.
        self.register_buffer("state", torch.zeros((), dtype=torch.uint8))
        self._mode: Mode = "observe"

    @classmethod
    def for_weight(
        cls, bits: int = 8, axis: int | None = 0, observer: Observer = "minmax", learned: bool = False
    ) -> Self:
        """Signed symmetric, one scale per output channel, scale found from the weight on each forward."""
        return cls(Affine(bits, axis=axis), observer, recompute=True, learned=learned).quantize()

    @classmethod
    def for_activation(cls, bits: int = 8, observer: Observer = "moving_average", learned: bool = False) -> Self:
        """Unsigned affine, one scale per tensor; starts by observing."""
        return cls(Affine(bits, signed=False, symmetric=False), observer, learned=learned)

    @property
    def mode(self) -> Mode:
        """What forward does: "observe", "quantize" or "frozen"."""
        return self._mode

    def observe(self) -> Self:
        """Only collect the range from now on."""
        return self._enter("observe")

    def quantize(self) -> Self:
        """Quantize from now on."""
        return self._enter("quantize")

    def freeze(self, x: Tensor | None = None) -> Self:
        """Quantize with fixed scale and zero point from now on.

        Args:
            x: find the range of this tensor first, such as the final weight; a step already learned stays.

        Raises:
            ConfigError: nothing was ever observed.
        """
        if x is not None and not (self.learned and self.scale.numel()):
            self._observe(x)
        self._require_range()
        return self._enter("frozen")

    def qparams(self) -> tuple[Tensor, Tensor, int, int]:
        """Scale (fp32) and zero point (int32), shape () or (channels,), smallest and largest code.

        Raises:
            ConfigError: nothing was ever observed.
        """
        self._require_range()
        return self._scale().detach(), self.zero_point, self.format.qmin, self.format.qmax

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, quantized unless observing; dtype and shape stay."""
        if self._mode == "observe":
            self._observe(x)
            return x
        if x.numel() == 0:
            return x
        if self._follows():
            scale, zero_point = self._observe(x)
        else:
            self._require_range()
            scale, zero_point = self._scale(), self.zero_point
        if self.learned:
            scale = self._trained_scale(x)
        return fake_quantize(x, scale, zero_point, self.format.qmin, self.format.qmax, self.format.axis)

    def extra_repr(self) -> str:
        """Format, observer and mode, for print(model)."""
        return f"{self.format}, observer={self.observer}, mode={self._mode}"

    def _enter(self, mode: Mode) -> Self:
        self._mode = mode
        self.state.fill_(get_args(Mode).index(mode))
        return self

    def _follows(self) -> bool:
        if self._mode == "frozen":
            return False
        if self.learned:
            return self.scale.numel() == 0
        return self.recompute or self.training

    def _require_range(self) -> None:
        if self.scale.numel() == 0:
            raise ConfigError("a FakeQuantize in mode quantize or frozen has seen no data: run calibration data first")

    def _scale(self) -> Tensor:
        # Training may carry a learned step through zero; its mirror image is the same quantizer.
        return self.scale.abs().clamp_min(MIN_SCALE) if self.learned else self.scale

    def _trained_scale(self, x: Tensor) -> Tensor:
        """The learned step with its gradient divided by sqrt(values * qmax), section 2.2 of the paper."""
        if self._mode == "frozen" or not self.scale.requires_grad or not torch.is_grad_enabled():
            return self._scale().detach()
        samples = 1 if self.recompute else x.shape[0]
        values = x.numel() / (samples * self.scale.numel())
        scale = self._scale()
        scale.register_hook(lambda grad: grad / math.sqrt(values * self.format.qmax))
        return scale

    @torch.no_grad()
    def _observe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take `x` into the range; the returned pair is fresh, no later update changes what autograd saved."""
        if x.numel() == 0:
            return self.scale, self.zero_point
        lo, hi = observed_range(x, self.format, self.observer)
        first = self.scale.numel() == 0
        if first:
            self._resize(lo.shape, lo.device)
        if not self.recompute:
            self._require_finite(lo, hi)
            if not first:
                lo, hi = merged_range((self.lo, self.hi), (lo, hi), self.seen, self.observer)
        scale, zero_point = self.format.qparams(lo, hi)
        for name, value in (("lo", lo), ("hi", hi), ("scale", scale), ("zero_point", zero_point)):
            getattr(self, name).copy_(value)
        self.seen += 1
        return scale, zero_point

    def _require_finite(self, lo: Tensor, hi: Tensor) -> None:
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(lo + hi).all()):
            raise ConfigError(
                f"a quantizer observed the range {lo.min().item():g} to {hi.max().item():g}: "
                "the values must be finite, look for a diverged layer or unnormalised data"
            )

    def _resize(self, shape: torch.Size, device: torch.device) -> None:
        for name in ("scale", "zero_point", "lo", "hi"):
            old = getattr(self, name)
            old.data = torch.zeros(shape, dtype=old.dtype, device=device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        scale, state = state_dict.get(prefix + "scale"), state_dict.get(prefix + "state")
        if scale is not None and scale.shape != self.scale.shape:
            self._resize(scale.shape, self.scale.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if state is not None:
            modes = get_args(Mode)
            if not 0 <= int(state) < len(modes):
                raise ConfigError(f"state={int(state)} of {prefix}state is no mode: expected 0 to {len(modes) - 1}")
            self._mode = modes[int(state)]
