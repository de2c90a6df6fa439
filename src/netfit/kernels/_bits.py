"""Exact products of binary matrices, 64 values a word: the arithmetic of 1-bit layers.

A word is an int64 (torch has no full uint64) whose bit j is value j of its 64; the inner dimension is padded
with zero bits. "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks" (Rastegari et
al., 2016); multi-bit activations as planes: "DoReFa-Net" (Zhou et al., 2016).
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import custom_op, source


def _check_codes(codes: Tensor, bits: int) -> None:
    if codes.dtype != torch.uint8 or codes.ndim != 2:
        raise ConfigError(f"codes of shape {tuple(codes.shape)} and {codes.dtype}: give uint8 (rows, k)")
    if not 1 <= bits <= 8:
        raise ConfigError(f"bits={bits} of bit planes: choose 1 to 8")


def _check_words(a: Tensor, b: Tensor, a_dims: int) -> None:
    if a.dtype != torch.int64 or b.dtype != torch.int64:
        raise ConfigError(f"packed matrices are int64 words, not {a.dtype} and {b.dtype}: use pack_signs")
    if a.ndim != a_dims or b.ndim != 2 or a.shape[-1] != b.shape[-1]:
        shape = "(m, words)" if a_dims == 2 else "(planes, m, words)"
        raise ConfigError(f"packed shapes {tuple(a.shape)} and {tuple(b.shape)}: expected {shape} and (n, words)")


def _check_inner(a: Tensor, k: int) -> None:
    if k < 0 or -(-k // 64) != a.shape[-1]:
        raise ConfigError(f"k={k} values do not fill {a.shape[-1]} words of 64 bits")


def _bit_values(words: Tensor) -> Tensor:
    """0 or 1, fp64 (..., 64 * words): fp64 products of these are exact."""
    bits = words[..., None] >> torch.arange(64, device=words.device) & 1
    return bits.flatten(-2).double()


def _pack_planes_reference(codes: Tensor, bits: int) -> Tensor:
    _check_codes(codes, bits)
    rows, k = codes.shape
    padded = torch.nn.functional.pad(codes, (0, -k % 64)).long().reshape(rows, -(-k // 64), 64)
    planes = [(padded >> p & 1) << torch.arange(64, device=codes.device) for p in range(bits)]
    return torch.stack([plane.sum(-1) for plane in planes])


def _pack_planes_fake(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty((bits, codes.shape[0], (codes.shape[1] + 63) // 64), dtype=torch.int64)


def _pack_planes_native() -> Callable[..., Tensor]:
    function = compile_c(source("tile.h", "bits.c"), "bits").pack_planes
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    function.restype = None

    def run(codes: Tensor, bits: int) -> Tensor:
        _check_codes(codes, bits)
        codes, planes = codes.contiguous(), _pack_planes_fake(codes, bits)
        function(codes.data_ptr(), *codes.shape, bits, planes.data_ptr())
        return planes

    return run


def _binary_reference(a: Tensor, b: Tensor, k: int) -> Tensor:
    _check_words(a, b, 2)
    _check_inner(a, k)
    signs_a, signs_b = (2 * _bit_values(words)[:, :k] - 1 for words in (a, b))
    return (signs_a @ signs_b.T).int()


def _binary_fake(a: Tensor, b: Tensor, k: int) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[0]), dtype=torch.int32)


def _binary_native() -> Callable[..., Tensor]:
    function = compile_c(source("tile.h", "bits.c"), "bits").binary_gemm
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_void_p]

    def run(a: Tensor, b: Tensor, k: int) -> Tensor:
        _check_words(a, b, 2)
        _check_inner(a, k)
        a, b, out = a.contiguous(), b.contiguous(), _binary_fake(a, b, k)
        if function(a.data_ptr(), b.data_ptr(), len(a), len(b), a.shape[1], k, out.data_ptr()):
            raise MemoryError("binary_gemm found no memory for a block of b")
        return out

    return run


def _planes_reference(a: Tensor, b: Tensor) -> Tensor:
    _check_words(a, b, 3)
    signs = 2 * _bit_values(b) - 1
    weights = 2.0 ** torch.arange(len(a), device=a.device, dtype=torch.float64)
    return ((_bit_values(a) @ signs.T) * weights[:, None, None]).sum(0).int()


def _planes_fake(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((a.shape[1], b.shape[0]), dtype=torch.int32)


def _planes_native() -> Callable[..., Tensor]:
    function = compile_c(source("tile.h", "bits.c"), "bits").planes_gemm
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_void_p]

    def run(a: Tensor, b: Tensor) -> Tensor:
        _check_words(a, b, 3)
        a, b, out = a.contiguous(), b.contiguous(), _planes_fake(a, b)
        planes, m, words = a.shape
        if function(a.data_ptr(), b.data_ptr(), planes, m, len(b), words, out.data_ptr()):
            raise MemoryError("planes_gemm found no memory for a block of b")
        return out

    return run


_pack_planes = custom_op("pack_planes", _pack_planes_reference, native=_pack_planes_native, fake=_pack_planes_fake)
_binary_gemm = custom_op("binary_gemm", _binary_reference, native=_binary_native, fake=_binary_fake)
_planes_gemm = custom_op("planes_gemm", _planes_reference, native=_planes_native, fake=_planes_fake)


def pack_planes(codes: Tensor, bits: int) -> Tensor:
    """Split unsigned codes into bit planes and pack each.

    Args:
        codes: uint8 (rows, k); only the lowest `bits` bits count.
        bits: 1 to 8.

    Returns:
        int64 (bits, rows, ceil(k / 64)), plane p holding bit p.

    Raises:
        ConfigError: shape, dtype or `bits` is not allowed.
    """
    out: Tensor = _pack_planes(codes, bits)
    return out


def pack_signs(x: Tensor) -> Tensor:
    """Pack the signs of a matrix: bit 1 where x >= 0, as `netfit.quant.Binary` rounds.

    Args:
        x: (rows, k).

    Returns:
        int64 (rows, ceil(k / 64)).

    Raises:
        ConfigError: `x` is not a matrix.
    """
    return pack_planes((x >= 0).view(torch.uint8), 1)[0]


def binary_gemm(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Product of two matrices of -1 and +1 (w1a1): out[i, j] = sum over k of a[i] * b[j].

    Args:
        a: int64 (m, ceil(k / 64)), from `pack_signs`.
        b: int64 (n, ceil(k / 64)).
        k: inner dimension.

    Returns:
        int32 (m, n).

    Raises:
        ConfigError: shapes, dtypes or `k` do not fit each other.

    Example:
        >>> a, b = torch.tensor([[1.0, -1.0, -1.0]]), torch.tensor([[1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])
        >>> binary_gemm(pack_signs(a), pack_signs(b), k=3)
        tensor([[ 1, -3]], dtype=torch.int32)
    """
    out: Tensor = _binary_gemm(a, b, k)
    return out


def planes_gemm(a: Tensor, b: Tensor) -> Tensor:
    """Product of unsigned codes and a matrix of -1 and +1 (w1a2 with two planes).

    Args:
        a: int64 (planes, m, words), from `pack_planes`.
        b: int64 (n, words), from `pack_signs`.

    Returns:
        int32 (m, n).

    Raises:
        ConfigError: shapes or dtypes do not fit each other.

    Example:
        >>> a, b = torch.tensor([[3, 0, 2]], dtype=torch.uint8), torch.tensor([[1.0, 1.0, -1.0]])
        >>> planes_gemm(pack_planes(a, bits=2), pack_signs(b))
        tensor([[1]], dtype=torch.int32)
    """
    out: Tensor = _planes_gemm(a, b)
    return out
