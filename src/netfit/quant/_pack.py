"""Packed storage: k-bit codes, several to a byte, with stochastic rounding. No gradient.

The layout (groups of contiguous values, low bits first) is that of the C kernels in `netfit.kernels`, which
draw their random numbers from a hash of the position instead of a generator.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from netfit.errors import ConfigError


@dataclass(frozen=True)
class Groups:
    """A tensor stored as k-bit codes with a minimum and a step per group: the result of `quantize_groups`."""

    codes: Tensor
    lo: Tensor
    scale: Tensor
    bits: int
    group_size: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of codes, minima and steps together."""
        return self.codes.nbytes + self.lo.nbytes + self.scale.nbytes


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack small codes into bytes, the first one in the lowest bits.

    Args:
        codes: uint8 (n,), each below 2^bits.
        bits: 1, 2, 4 or 8.

    Returns:
        uint8 (ceil(n * bits / 8),); the unused bits of the last byte are 0.

    Raises:
        ConfigError: `bits` is not allowed, or a code does not fit.

    Example:
        >>> pack_bits(torch.tensor([1, 2, 3], dtype=torch.uint8), bits=2)
        tensor([57], dtype=torch.uint8)
    """
    _check_bits(bits)
    if codes.numel() and int(codes.max()) >> bits:
        raise ConfigError(f"code {int(codes.max())} does not fit into {bits} bits: codes must be below {2**bits}")
    per_byte = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.numel() % per_byte))
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    return (padded.reshape(-1, per_byte) << shifts).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, bits: int, n: int) -> Tensor:
    """Undo `pack_bits`.

    Args:
        packed: uint8 (ceil(n * bits / 8),).
        bits: 1, 2, 4 or 8.
        n: number of codes.

    Returns:
        uint8 (n,).

    Raises:
        ConfigError: `bits` is not allowed, or `packed` does not hold n codes.

    Example:
        >>> unpack_bits(torch.tensor([57], dtype=torch.uint8), bits=2, n=3)
        tensor([1, 2, 3], dtype=torch.uint8)
    """
    _check_bits(bits)
    if packed.numel() != -(-n * bits // 8):
        raise ConfigError(f"{packed.numel()} bytes for {n} codes of {bits} bits: expected {-(-n * bits // 8)}")
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> shifts) & (2**bits - 1)).flatten()[:n]


def quantize_groups(x: Tensor, bits: int = 4, group_size: int = 256, seed: int = 0) -> Groups:
    """Store a tensor in `bits` per value, unbiased by stochastic rounding.

    Each group of contiguous values keeps its minimum lo and step s = (max - lo) / (2^bits - 1) in fp32, a code
    is floor((x - lo) / s + u) with u uniform in [0, 1). The error is below s, zero in expectation, with a
    variance of at most s^2 / 4. Constant groups are exact; a group with a NaN or infinity decodes to NaN.
    "ActNN: Reducing Training Memory Footprint via 2-Bit Activation Compressed Training" (Chen et al., 2021).

    Args:
        x: any shape, floating point.
        bits: 1, 2, 4 or 8.
        group_size: values per group, a multiple of 8.
        seed: of the rounding.

    Raises:
        ConfigError: `bits` or `group_size` is not allowed.

    Example:
        >>> x = torch.linspace(-1, 1, 1000)
        >>> stored = quantize_groups(x, bits=8)
        >>> stored.nbytes, bool((dequantize_groups(stored) - x).abs().max() <= stored.scale.max())
        (1032, True)
    """
    _check_bits(bits)
    if group_size < 8 or group_size % 8:
        raise ConfigError(f"group_size={group_size}: choose a multiple of 8")
    flat = x.detach().float().flatten()
    n = flat.numel()
    # Repeating the last value fills the last group without widening its range.
    filler = flat[-1:].expand(-n % group_size)
    rows = torch.cat([flat, filler]).reshape(-1, group_size)
    lo, hi = (rows.amin(1), rows.amax(1)) if n else (flat, flat)
    scale = (hi - lo) / (2**bits - 1)
    broken = ~torch.isfinite(scale)
    inverse = torch.where(torch.isfinite(1 / scale), 1 / scale, 0.0)
    u = torch.rand(rows.shape, generator=torch.Generator(x.device).manual_seed(seed), device=x.device)
    codes = ((rows - lo[:, None]) * inverse[:, None]).add_(u).floor_().clamp_(0, 2**bits - 1)
    codes = torch.where(broken[:, None], 0.0, codes).to(torch.uint8).flatten()[:n]
    lo, scale = lo.masked_fill(broken, torch.nan), scale.masked_fill(broken, torch.nan)
    return Groups(pack_bits(codes, bits), lo, scale, bits, group_size, x.shape, x.dtype)


def dequantize_groups(groups: Groups) -> Tensor:
    """Undo `quantize_groups`, up to the rounding: a tensor of the stored shape and dtype."""
    n = groups.shape.numel()
    codes = unpack_bits(groups.codes, groups.bits, n).float()
    group = torch.arange(n, device=codes.device) // groups.group_size
    return (codes * groups.scale[group] + groups.lo[group]).reshape(groups.shape).to(groups.dtype)


def _check_bits(bits: int) -> None:
    if bits not in (1, 2, 4, 8):
        raise ConfigError(f"bits={bits} of packed codes: choose 1, 2, 4 or 8")
