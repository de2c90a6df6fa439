"""k-bit storage of float groups: `netfit.quant.quantize_groups` as torch operators backed by C.

The rounding draws come from a hash of (seed, group, place in the group), so the result depends on nothing
else: not on threads, not on who computes it. C and reference agree bit for bit.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import custom_op, source

_WORD = 0xFFFFFFFF


def _check(bits: int, group_size: int) -> None:
    if bits not in (1, 2, 4, 8):
        raise ConfigError(f"bits={bits} of packed codes: choose 1, 2, 4 or 8")
    if group_size < 8 or group_size % 8:
        raise ConfigError(f"group_size={group_size}: choose a multiple of 8")


def _check_stored(codes: Tensor, lo: Tensor, scale: Tensor, bits: int, group_size: int, n: int) -> None:
    _check(bits, group_size)
    size, groups = -(-n * bits // 8), -(-n // group_size)
    if codes.dtype != torch.uint8 or lo.dtype != torch.float32 or scale.dtype != torch.float32:
        raise ConfigError(f"stored groups are uint8, float32, float32, not {codes.dtype}, {lo.dtype}, {scale.dtype}")
    if n < 0 or (codes.numel(), lo.numel(), scale.numel()) != (size, groups, groups):
        raise ConfigError(
            f"{codes.numel()} bytes, {lo.numel()} minima and {scale.numel()} steps for {n} values: "
            f"expected {size}, {groups} and {groups}"
        )


def _mix(h: Tensor) -> Tensor:
    """lowbias32 (Wellons, "Prospecting for Hash Functions", 2018) on 32-bit words kept in int64."""
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & _WORD
    h = ((h ^ (h >> 15)) * 0x846CA68B) & _WORD
    return h ^ (h >> 16)


def _uniform(groups: int, group_size: int, seed: int, device: torch.device) -> Tensor:
    """Draws in [0, 1) of shape (groups, group_size)."""
    low, high = seed & _WORD, seed >> 32 & _WORD
    base = _mix(torch.tensor(low, device=device)) ^ high
    key = _mix((base + torch.arange(groups, device=device)) & _WORD)
    return (_mix(key[:, None] ^ torch.arange(group_size, device=device)) >> 8).float() * 2.0**-24


def _pack_reference(x: Tensor, bits: int, group_size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    _check(bits, group_size)
    flat = x.float().flatten()
    n = flat.numel()
    rows = torch.cat([flat, flat[-1:].expand(-n % group_size)]).reshape(-1, group_size)
    if not n:
        return x.new_empty(0, dtype=torch.uint8), flat.clone(), flat.clone()
    lo, hi = rows.amin(1), rows.amax(1)
    scale = (hi - lo) / (2**bits - 1)
    broken = ~torch.isfinite(scale)
    inverse = torch.where(torch.isfinite(1 / scale), 1 / scale, 0.0)
    u = _uniform(len(rows), group_size, seed, x.device)
    codes = ((rows - lo[:, None]) * inverse[:, None] + u).floor().clamp(0, 2**bits - 1)
    codes = torch.where(broken[:, None], 0.0, codes).to(torch.uint8).flatten()[:n]
    per = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -n % per)).reshape(-1, per)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=x.device)
    packed = (padded << shifts).sum(1, dtype=torch.uint8)
    return packed, lo.masked_fill(broken, torch.nan), scale.masked_fill(broken, torch.nan)


def _pack_fake(x: Tensor, bits: int, group_size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    n = x.numel()
    side = x.new_empty((n + group_size - 1) // group_size, dtype=torch.float32)
    return x.new_empty((n * bits + 7) // 8, dtype=torch.uint8), side, torch.empty_like(side)


def _pack_native() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    function = compile_c(source("groups.c"), "groups").pack_groups
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, word, word, word, ctypes.c_uint64, pointer, pointer, pointer]
    function.restype = None

    def run(x: Tensor, bits: int, group_size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        _check(bits, group_size)
        x = x.float().contiguous()
        codes, lo, scale = _pack_fake(x, bits, group_size, seed)
        places = codes.data_ptr(), lo.data_ptr(), scale.data_ptr()
        function(x.data_ptr(), x.numel(), bits, group_size, seed & (2**64 - 1), *places)
        return codes, lo, scale

    return run


def _unpack_reference(codes: Tensor, lo: Tensor, scale: Tensor, bits: int, group_size: int, n: int) -> Tensor:
    _check_stored(codes, lo, scale, bits, group_size, n)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    values = ((codes[:, None] >> shifts) & (2**bits - 1)).flatten()[:n].float()
    group = torch.arange(n, device=codes.device) // group_size
    return values * scale[group] + lo[group]


def _unpack_fake(codes: Tensor, lo: Tensor, scale: Tensor, bits: int, group_size: int, n: int) -> Tensor:
    return lo.new_empty(n)


def _unpack_native() -> Callable[..., Tensor]:
    function = compile_c(source("groups.c"), "groups").unpack_groups
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, pointer, pointer, word, word, word, pointer]
    function.restype = None

    def run(codes: Tensor, lo: Tensor, scale: Tensor, bits: int, group_size: int, n: int) -> Tensor:
        _check_stored(codes, lo, scale, bits, group_size, n)
        codes, lo, scale = codes.contiguous(), lo.contiguous(), scale.contiguous()
        x = lo.new_empty(n)
        function(codes.data_ptr(), lo.data_ptr(), scale.data_ptr(), n, bits, group_size, x.data_ptr())
        return x

    return run


_pack = custom_op("pack_groups", _pack_reference, native=_pack_native, fake=_pack_fake)
_unpack = custom_op("unpack_groups", _unpack_reference, native=_unpack_native, fake=_unpack_fake)


def pack_groups(x: Tensor, bits: int, group_size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Store a tensor in `bits` per value, unbiased by stochastic rounding.

    Each group of contiguous values keeps its minimum lo and step s = (max - lo) / (2^bits - 1); a code is
    floor((x - lo) / s + u), u uniform in [0, 1) and a function of the seed and the place. A group with a NaN
    or infinity decodes to NaN. "ActNN: Reducing Training Memory Footprint via 2-Bit Activation Compressed
    Training" (Chen et al., 2021).

    Args:
        x: any shape, floating point, read as fp32.
        bits: 1, 2, 4 or 8.
        group_size: values per group, a multiple of 8.
        seed: 64 bits.

    Returns:
        codes, uint8 (ceil(n * bits / 8),), low bits first; lo and s, fp32 (ceil(n / group_size),).

    Raises:
        ConfigError: `bits` or `group_size` is not allowed.
    """
    out: tuple[Tensor, Tensor, Tensor] = _pack(x, bits, group_size, seed)
    return out


def unpack_groups(codes: Tensor, lo: Tensor, scale: Tensor, bits: int, group_size: int, n: int) -> Tensor:
    """Undo `pack_groups`, up to the rounding.

    Args:
        codes: uint8 (ceil(n * bits / 8),).
        lo: fp32 (ceil(n / group_size),).
        scale: fp32, shape of `lo`.
        bits: 1, 2, 4 or 8.
        group_size: values per group.
        n: number of values.

    Returns:
        fp32 (n,).

    Raises:
        ConfigError: the sizes or dtypes do not fit each other.

    Example:
        >>> x = torch.linspace(-1, 1, 1000)
        >>> back = unpack_groups(*pack_groups(x, 8, 256, seed=0), 8, 256, 1000)
        >>> bool((x - back).abs().max() <= 0.52 / 255)
        True
    """
    out: Tensor = _unpack(codes, lo, scale, bits, group_size, n)
    return out
