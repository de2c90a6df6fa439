"""Codecs by the words of policy files and the command line."""

import re

import torch

from netfit.errors import ConfigError

from ._base import Codec
from ._compose import Compose
from ._exact import Cast, Keep, Recompute, ShapeOnly, SignMask
from ._kbit import KBit
from ._pool import Pool
from ._sparse import BlockSparse

__all__ = ["parse"]

_WORDS = {
    "keep": Keep(),
    "mask": SignMask(),
    "shape": ShapeOnly(),
    "recompute": Recompute(),
    "lossless": Recompute(),
    "bf16": Cast(torch.bfloat16),
    "fp16": Cast(torch.float16),
    "fp8": Cast(torch.float8_e4m3fn),
}
_HELP = (
    "known are keep, mask, recompute (or lossless), bf16, fp16, fp8, q1 q2 q4 q8 (q4g64: groups of 64), pool<kernel>, "
    "bsr<percent> (bsr25b32: blocks of 32), and two of them joined by +"
)


def parse(word: str) -> Codec:
    """Codec of a word.

    Raises:
        ConfigError: there is none of that name, or its numbers cannot be used.

    >>> parse("q4"), parse("bsr10"), parse("pool2+q8")
    (KBit(bits=4, group_size=256), BlockSparse(block=8, density=0.1, norm='l1'), \
Compose(first=Pool(kernel=2), second=KBit(bits=8, group_size=256)))
    """
    if "+" in word:
        first, _, second = word.partition("+")
        pair = parse(first), parse(second)
        if any(isinstance(c, Keep | Recompute | SignMask | ShapeOnly) for c in pair):
            raise ConfigError(f"codec {word!r}: only pool, bsr, q and casts can be joined")
        return Compose(*pair)
    if word in _WORDS:
        return _WORDS[word]
    if found := re.fullmatch(r"q(\d+)(?:g(\d+))?", word):
        return KBit(int(found[1]), int(found[2] or 256))
    if found := re.fullmatch(r"pool(\d+)", word):
        return Pool(int(found[1]))
    if found := re.fullmatch(r"bsr(\d+(?:\.\d+)?)(?:b(\d+))?(l2)?", word):
        return BlockSparse(int(found[2] or 8), float(found[1]) / 100, "l2" if found[3] else "l1")
    raise ConfigError(f"no codec is called {word!r}: {_HELP}")
