"""Generated layers on Gaussians as functions of means and variances, for networks that others put together."""

from collections.abc import Mapping
from typing import Any

from ._sizes import ConvSizes
from ._space import Config
from .ops import Kernel, PfpConv2d, PfpDense

__all__ = ["MomentKernels"]

Moments = tuple[Any, Any]


class MomentKernels:
    """Linear layers and convolutions of Gaussians by generated kernels, one for each shape and set of weights.

    The methods are what a moment rule computes, so a tuned kernel gets into a probabilistic network by registering a
    rule that calls one::

        kernels = MomentKernels(Records("records.jsonl").fastest())

        @register_moment_rule(torch.ops.aten.linear)
        def linear(x, weight, bias=None):
            return Gaussian(*kernels.linear(x.mean, x.var, weight.mean, weight.var))

    Args:
        configs: configuration by name of the space it was tuned in; others take their default.
    """

    def __init__(self, configs: Mapping[str, Config] | None = None) -> None:
        self._configs = dict(configs or {})
        self._built: dict[Any, tuple[Kernel, Any]] = {}

    def linear(
        self, mean: Any, var: Any, weight: Any, weight_var: Any, bias: Any = None, bias_var: Any = None
    ) -> Moments:
        """Mean and variance of x @ weight.T + bias.

        Args:
            mean, var: (batch, in) of the input; ``var`` None when it is known exactly.
            weight, weight_var: (out, in).
            bias, bias_var: (out,), or None.
        """
        op = PfpDense.of(len(mean), mean.shape[1], len(weight))
        return self._run(op, mean, var, weight, weight_var, bias, bias_var)

    def conv2d(
        self, mean: Any, var: Any, weight: Any, weight_var: Any, bias: Any = None, bias_var: Any = None,
        stride: int = 1, padding: int = 0,
    ) -> Moments:  # fmt: skip
        """Mean and variance of a convolution without groups.

        Args:
            mean, var: (batch, channels, height, width) of the input; ``var`` None when it is known exactly.
            weight, weight_var: (rows, channels, taps, taps).
            bias, bias_var: (rows,), or None.
            stride, padding: along both axes.
        """
        n, c, h, w = mean.shape
        k, _, r, s = weight.shape
        op = PfpConv2d(ConvSizes(n, c, h, w, k, r, s, (stride, stride), (padding, padding)))
        return self._run(op, mean, var, weight, weight_var, bias, bias_var)

    def _run(
        self, op: PfpConv2d, mean: Any, var: Any, weight: Any, weight_var: Any, bias: Any, bias_var: Any
    ) -> Moments:
        import torch

        # Weights that were changed since have another version; the tensors are kept, so no other takes their place.
        key = op, *(None if t is None else (t.data_ptr(), t._version) for t in (weight, weight_var, bias, bias_var))
        if key not in self._built:
            kernel = Kernel(op, self._configs.get(op.space().name))
            zero = weight.new_zeros(len(weight))
            start = None
            if bias is not None or bias_var is not None:
                start = torch.cat([zero if b is None else b for b in (bias, bias_var)])
            spread = torch.zeros_like(weight) if weight_var is None else weight_var
            kernel.pack(torch.stack([weight, weight.square() + spread]), start)
            self._built[key] = kernel, (weight, weight_var, bias, bias_var)
        square = mean.square()
        out, second = self._built[key][0](torch.stack([mean, square if var is None else square + var]))
        return out, (second - out.square()).clamp(min=0)
