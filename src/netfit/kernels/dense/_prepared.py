"""A convolution ready to run again and again."""

from dataclasses import asdict

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels.dense._library import Sizes, library
from netfit.kernels.dense._shape import CHANNELS, ConvShape, Precision, blocking

_TYPES = {"fp32": (torch.float32, torch.float32), "int8": (torch.int8, torch.int8), "bits": (torch.uint8, torch.int8)}


class Prepared:
    """A convolution with packed weights and reserved memory; one thread at a time may call it.

    Args:
        shape: sizes.
        weight: (rows, channels, taps_h, taps_w): fp32, int8, or int8 of -1 and +1 for ``"bits"``.
        bias: (rows,), fp32 or int32; nothing is added when None.
        precision: ``"fp32"``, ``"int8"`` (signed activations) or ``"bits"`` (unsigned codes of ``planes`` bits).
        planes: bits of an activation, 1 to 8, for ``"bits"``.

    Attributes:
        blocking: the loop nest it runs.

    Raises:
        ConfigError: the weight does not fit the shape or the precision.
        TargetUnavailable: there is no C compiler.
    """

    def __init__(
        self, shape: ConvShape, weight: Tensor, bias: Tensor | None = None, precision: Precision = "fp32",
        planes: int = 1,
    ) -> None:  # fmt: skip
        self._library, self.blocking = library(precision), blocking(shape, precision)
        self.shape, self.precision, self.planes = shape, precision, planes
        expected = (shape.rows, shape.channels, shape.taps_h, shape.taps_w)
        x_type, w_type = _TYPES[precision]
        if weight.shape != expected or weight.dtype != w_type:
            raise ConfigError(f"a weight of {_describe(weight)}: {precision} here takes {expected} {w_type}")
        if not 1 <= planes <= 8 or (planes > 1 and precision != "bits"):
            raise ConfigError(f"planes = {planes} of {precision}: allowed are 1 to 8 for bits, 1 otherwise")
        self._x = (shape.batch, shape.channels, shape.height, shape.width), x_type
        out_type = torch.float32 if precision == "fp32" else torch.int32
        self._out = (shape.batch, shape.rows, shape.out_h, shape.out_w), out_type
        if bias is not None and (bias.shape != (shape.rows,) or bias.dtype != out_type):
            raise ConfigError(f"a bias of {_describe(bias)}: {precision} here takes {(shape.rows,)} {out_type}")
        self._weight = _packed(_words(weight, precision), self.blocking.tile_rows)
        start = torch.zeros(shape.rows, dtype=out_type) if bias is None else bias.clone()
        if precision == "int8":  # activations are stored with an offset where the processor wants them unsigned
            start -= self._library.dense_offset() * weight.sum((1, 2, 3), dtype=torch.int32)
        self._start = torch.nn.functional.pad(start, (0, -shape.rows % self.blocking.tile_rows))
        self._sizes = self._measures()
        self._scratch = torch.empty(self._library.dense_scratch_words(self._sizes), dtype=torch.int32)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            x: (batch, channels, height, width), contiguous: fp32, int8, or uint8 codes.
            out: (batch, rows, out_h, out_w) to write to; made when None.

        Returns:
            `out`: fp32, or int32.

        Raises:
            ConfigError: a tensor has another shape or type than was prepared for.
        """
        _check("the input", x, *self._x)
        out = torch.empty(self._out[0], dtype=self._out[1]) if out is None else out
        _check("out", out, *self._out)
        places = (t.data_ptr() for t in (x, self._weight, self._start, self._scratch, out))
        self._library.dense(self._sizes, *places)
        return out

    def _measures(self) -> Sizes:
        s, b = self.shape, self.blocking
        words = -(-s.channels // CHANNELS[self.precision])
        blocks = {"kc": b.kc, "mc": b.mc, "nc": b.nc}
        return Sizes(**asdict(s), **blocks, words=words, out_h=s.out_h, out_w=s.out_w, planes=self.planes)


def _check(what: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if x.shape != shape or x.dtype != dtype or not x.is_contiguous() or x.device.type != "cpu":
        raise ConfigError(f"{what} is {_describe(x)}: prepared for contiguous {shape} {dtype} on the CPU")


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype}"


def _words(weight: Tensor, precision: str) -> Tensor:
    """(rows, words x taps): channels of one word side by side, as the activations' words are."""
    rows, channels, taps_h, taps_w = weight.shape
    if precision == "fp32":
        return weight.detach().reshape(rows, -1)
    per = CHANNELS[precision]
    full = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, -channels % per)).reshape(rows, -1, per, taps_h, taps_w)
    if precision == "int8":
        return full.permute(0, 1, 3, 4, 2).flatten().view(torch.int32).reshape(rows, -1)
    return (full > 0).long().mul_(_powers()).sum(2).to(torch.int32).reshape(rows, -1)


def _powers() -> Tensor:
    """2^i of bit i of a signed word, (1, 1, 32, 1, 1)."""
    powers = 2 ** torch.arange(32)
    powers[31] = -powers[31]
    return powers[:, None, None]


def _packed(words: Tensor, rows: int) -> Tensor:
    """[ceil(rows / tile)][words][tile], missing rows zero."""
    full = torch.nn.functional.pad(words, (0, 0, 0, -len(words) % rows))
    return full.reshape(-1, rows, words.shape[1]).transpose(1, 2).contiguous()
