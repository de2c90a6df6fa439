"""Operators by text, as the command line writes them."""

from __future__ import annotations

from typing import Any

from netfit.errors import ConfigError, did_you_mean

from .._sizes import ConvSizes
from ._dense import BitConv2d, DepthwiseConv2d
from ._operator import Operator
from ._pfp import PfpConv2d, PfpDense, PfpMaxPool2d, PfpReLU
from ._product import Conv2d, Gemm

__all__ = ["parse"]

_KINDS = ("conv2d", "depthwise", "gemm", "pfp-conv2d", "pfp-dense", "pfp-maxpool", "pfp-relu")
_BITS = {f"bits{n}": n for n in range(1, 9)}
_DTYPES = {"fp32": "float32", "int8": "int8"} | dict.fromkeys(_BITS, "bits")


def parse(text: str) -> Operator:
    """An operator from its text.

    Args:
        text: ``"gemm:960x960x960"``, ``"gemm:12x960x960,int8"``, ``"conv2d:1x64x56x56,k=64,r=3,padding=1,fp32"``,
            ``"depthwise:1x64x56x56,r=3,padding=1"``, ``"pfp-dense:1x784x128"``, ``"pfp-conv2d:..."``,
            ``"pfp-maxpool:1x6x28x28"``, ``"pfp-relu:1x6x28x28"``. Types are fp32, int8 and bits1 to bits8; a
            convolution is nchw unless nhwc is among the words, a product of bits is one of codes (1, k, 1, m).

    Raises:
        ConfigError: the text cannot be read.

    >>> parse("gemm:12x960x960,int8").name
    'gemm int8 12x960x960'
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in _KINDS:
        raise ConfigError(f"no operator {kind!r}; {did_you_mean(kind, _KINDS)}")
    words = [w.strip() for w in rest.split(",")]
    named = [w for w in words[1:] if "=" not in w]
    if unknown := [w for w in named if w not in _DTYPES and w not in ("relu", "nhwc")]:
        raise ConfigError(f"{text!r}: no type {unknown[0]!r}; {did_you_mean(unknown[0], [*_DTYPES, 'relu', 'nhwc'])}")
    dtype: Any = next((_DTYPES[w] for w in named if w in _DTYPES), "float32")
    planes = next((_BITS[w] for w in named if w in _BITS), 0)
    if kind == "conv2d":
        sizes = _conv(words)
        return BitConv2d(sizes, planes) if planes else Conv2d(sizes, dtype, "nhwc" if "nhwc" in named else "nchw")
    if kind == "pfp-conv2d":
        return PfpConv2d(_conv(words), "relu" in named)
    if kind == "depthwise":
        channels = words[0].split("x")[1] if words[0].count("x") == 3 else "1"
        return DepthwiseConv2d(_conv([*words, f"k={channels}", f"groups={channels}"]), dtype)
    numbers = _sizes(text, words[0], 3 if kind in ("gemm", "pfp-dense") else 4)
    if kind == "gemm":
        return (
            BitConv2d(ConvSizes.gemm(*numbers), planes)
            if planes
            else Gemm.of(numbers[0], numbers[1], numbers[2], dtype)
        )
    if kind == "pfp-dense":
        return PfpDense.of(numbers[0], numbers[1], numbers[2], "relu" in named)
    return PfpReLU(*numbers) if kind == "pfp-relu" else PfpMaxPool2d(*numbers)


def _conv(words: list[str]) -> ConvSizes:
    return ConvSizes.from_text(",".join(w for i, w in enumerate(words) if i == 0 or "=" in w))


def _sizes(text: str, word: str, count: int) -> tuple[Any, ...]:
    try:
        sizes = tuple(int(x) for x in word.split("x"))
    except ValueError:
        sizes = ()
    if len(sizes) != count or min(sizes) < 1:
        raise ConfigError(f"{text!r}: expected {count} sizes such as {'x'.join(['8'] * count)}")
    return sizes
