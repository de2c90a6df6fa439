"""A convolution ready to run again and again."""

import ctypes
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
        packed: the input comes as words of channels (`channel_words`), as a layer before could have left it.

    Attributes:
        blocking: the loop nest it runs.
        in_place: whether the input is multiplied where it lies, and not copied into a padded image of words first.

    Raises:
        ConfigError: the weight does not fit the shape or the precision.
        TargetUnavailable: there is no C compiler.
    """

    def __init__(
        self, shape: ConvShape, weight: Tensor, bias: Tensor | None = None, precision: Precision = "fp32",
        planes: int = 1, packed: bool = False,
    ) -> None:  # fmt: skip
        self._library, self.blocking = library(precision), blocking(shape, precision)
        self.shape, self.precision, self.planes, self.packed = shape, precision, planes, packed
        expected = (shape.rows, shape.channels, shape.taps_h, shape.taps_w)
        x_type, w_type = _TYPES[precision]
        if weight.shape != expected or weight.dtype != w_type:
            raise ConfigError(f"a weight of {_describe(weight)}: {precision} here takes {expected} {w_type}")
        if not 1 <= planes <= 8 or (planes > 1 and precision != "bits"):
            raise ConfigError(f"planes = {planes} of {precision}: allowed are 1 to 8 for bits, 1 otherwise")
        if packed and planes > 1:
            raise ConfigError(f"planes = {planes} of a packed input: words hold one plane")
        words = -(-shape.channels // CHANNELS[precision])
        channels, x_type = (words, torch.int32) if packed and precision != "fp32" else (shape.channels, x_type)
        self._x = (shape.batch, channels, shape.height, shape.width), x_type
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
        self.in_place = (packed or precision == "fp32") and shape.is_product
        self._scratch = torch.empty(self._library.dense_scratch_words(self._sizes), dtype=torch.int32)
        self._own = [ctypes.c_void_p(t.data_ptr()) for t in (self._weight, self._start, self._scratch)]

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
        if out is None:
            out = torch.empty(self._out[0], dtype=self._out[1])
        else:
            _check("out", out, *self._out)
        self._library.dense(self._sizes, x.data_ptr(), *self._own, out.data_ptr())
        return out

    def _measures(self) -> Sizes:
        s, b = self.shape, self.blocking
        words = -(-s.channels // CHANNELS[self.precision])
        blocks = {"kc": b.kc, "mc": b.mc, "nc": b.nc}
        return Sizes(
            **asdict(s), **blocks, words=words, out_h=s.out_h, out_w=s.out_w, planes=self.planes, packed=self.packed
        )


def _check(what: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if x.shape != shape or x.dtype != dtype or not x.is_contiguous() or x.device.type != "cpu":
        raise ConfigError(f"{what} is {_describe(x)}: prepared for contiguous {shape} {dtype} on the CPU")


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype}"


def _words(weight: Tensor, precision: str) -> Tensor:
    """(rows, words x taps): channels of one word side by side, as the activations' words are."""
    rows = len(weight)
    if precision == "fp32":
        return weight.detach().reshape(rows, -1)
    return _channel_words(weight if precision == "int8" else weight > 0, CHANNELS[precision]).reshape(rows, -1)


def channel_words(x: Tensor, precision: Precision = "bits") -> Tensor:
    """Channels of every pixel side by side in 32-bit words, as the kernels multiply them.

    Args:
        x: (batch, channels, height, width): int8, or uint8 of which the lowest bit counts.
        precision: ``"int8"`` (four channels a word, with the offset that this processor wants) or ``"bits"``.

    Returns:
        int32 (batch, ceil(channels / 4 or 32), height, width).
    """
    if precision != "int8":
        return _channel_words((x & 1) > 0, CHANNELS["bits"])
    offset = library("int8").dense_offset() * 0x01010101
    return _channel_words(x, CHANNELS["int8"]) ^ (offset - 2**32 if offset >= 2**31 else offset)


def _channel_words(x: Tensor, per: int) -> Tensor:
    """int8 bytes, or truths as bits; channels that are missing in the last word are zeros."""
    batch, channels, height, width = x.shape
    full = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, -channels % per)).reshape(batch, -1, per, height, width)
    if x.dtype == torch.int8:
        return full.permute(0, 1, 3, 4, 2).flatten().view(torch.int32).reshape(batch, -1, height, width)
    powers = 2 ** torch.arange(per)
    powers[31] = -powers[31]  # the sign bit
    return (full * powers[:, None, None]).sum(2).to(torch.int32)


def _packed(words: Tensor, rows: int) -> Tensor:
    """[ceil(rows / tile)][words][tile], missing rows zero."""
    full = torch.nn.functional.pad(words, (0, 0, 0, -len(words) % rows))
    return full.reshape(-1, rows, words.shape[1]).transpose(1, 2).contiguous()
