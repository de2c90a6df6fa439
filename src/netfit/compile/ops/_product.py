"""Products of matrices and convolutions in fp32 and int8, on packed weights: vectors or the matrix unit of x86."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netfit.errors import ConfigError

from .._sizes import ConvSizes
from .._space import Config
from ._machine import Machine
from ._operator import Operator, Signature

__all__ = ["Conv2d", "Gemm", "Product"]

Dtype = Literal["float32", "int8"]
_MOST_INT32 = 2**31 - 1
_CYCLES_A_DOT = 16  # of the matrix unit: 16 x 16 sums of 64 bytes


@dataclass(frozen=True)
class Product(Operator):
    """What products, convolutions and their Gaussian relatives share: one loop nest, `op_matmul.c`.

    Knobs: ``unit`` (0 vectors, 1 the matrix unit), ``mr`` pixels and ``nv`` vectors (or tiles) of a tile of sums,
    ``kb`` blocks of the sum, and ``mc`` tiles and ``nc`` panels of a block.
    """

    sizes: ConvSizes
    files = ("vectors.h", "op_transpose.h", "op_gauss.h", "op_matmul.c")

    def __post_init__(self) -> None:
        z = self.sizes
        if z.groups != 1 or z.stride[0] != z.stride[1] or z.padding[0] != z.padding[1]:
            raise ConfigError(f"{z}: generated are convolutions without groups, alike along both axes")

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.sizes.macs

    @property
    def _integer(self) -> bool:
        return False

    @property
    def _gauss(self) -> bool:
        return False

    @property
    def _last(self) -> bool:
        """Channels come last."""
        return False

    @property
    def _matrix(self) -> bool:
        """Weights are (channels, rows)."""
        return False

    def _depth(self, unit: int) -> int:
        """Cells of a sum: words for vectors, rows of 64 bytes for the matrix unit."""
        z = self.sizes
        size = 1 if self._integer else 2 if unit else 4
        cell, full = (64, z.c) if unit else (4, -(-z.c * size // 4) * 4 // size)
        fused = z.s > 1 and z.c * size % cell != 0
        return z.r * (1 if fused else z.s) * -(-(z.s if fused else 1) * full * size // cell)

    def _dots(self, unit: int) -> int:
        """Products that one product takes: pieces of fp32 on the matrix unit, two sums of a variance."""
        return (1 if self._integer else 9 if self._gauss else 6) if unit else 3 if self._gauss else 1

    def knobs(self, m: Machine) -> dict[str, tuple[int, ...]]:
        """Unit, tile of sums, and blocks."""
        depth = self._depth(0)
        return {
            "unit": (0, 1) if m.matrix_unit else (0,),
            "mr": (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 28) + ((32,) if m.matrix_unit else ()),
            "nv": (1, 2, 3, 4, 5, 6),
            "kb": tuple(k for k in (1, 2, 3, 4, 6, 8, 12, 16) if k <= depth),
            "mc": (1, 4, 16, 64),
            "nc": (1, 4, 16, 64),
        }

    def why(self, config: Mapping[str, int], m: Machine) -> str | None:
        """Registers or tiles of the sums, and no block larger than what there is."""
        mr, nv, z = config["mr"], config["nv"], self.sizes
        if config["unit"] and (mr not in (16, 32) or nv > 2):
            return "tiles"
        if not config["unit"] and mr * nv + nv + 1 > m.registers:
            return "registers"
        if config["kb"] > self._depth(config["unit"]):
            return "depth"
        rows = z.oh * z.ow
        if not config["unit"] and mr > 1 and mr >= 2 * rows:
            return "rows"
        if config["nc"] // 4 * nv * m.lanes >= z.k or config["mc"] // 4 * mr >= rows:
            return "blocks" if config["nc"] > 1 or config["mc"] > 1 else None
        return None

    def default(self, m: Machine) -> Config:
        """The matrix unit from 16 rows on, otherwise as many sums as registers hold; few blocks."""
        z, pixels = self.sizes, self.sizes.n * self.sizes.oh * self.sizes.ow
        unit = int(m.matrix_unit and min(pixels, z.ow * 4) >= (16 if self._integer or self._gauss else 32))
        if unit:
            mr, nv = (32 if z.oh * z.ow > 16 else 16), (2 if z.k > 16 else 1)
            kb = max(1, self._depth(1) // 12)
        else:
            rows = z.oh * z.ow  # few of them need more vectors, or every sum waits for the one before
            vectors = -(-z.k // m.lanes)
            nv = min(vectors, 2 if rows >= 4 else min((3, 4, 5, 6), key=lambda n: (-(-vectors // n) * n, -n)))
            most = (m.registers - nv - 1) // nv
            mr = max(r for r in self.knobs(m)["mr"] if r <= most and r <= max(1, z.oh * z.ow))
            kb = max(1, self._depth(0) // 1024)
        kb = max(k for k in self.knobs(m)["kb"] if k <= kb)
        for mc in (4, 1):
            for nc in (16, 64, 4, 1) if unit else (64, 16, 4, 1):
                config = dict(zip(self.knobs(m), (unit, mr, nv, kb, mc, nc), strict=True))
                if self.why(config, m) is None:
                    return tuple(config.values())
        return unit, mr, nv, kb, 1, 1

    def defines(self, config: Mapping[str, int], m: Machine) -> dict[str, int]:
        """Sizes, tile and blocks."""
        z, unit, nv = self.sizes, config["unit"], config["nv"]
        mt = config["mr"] // 16 if unit else 1
        most = 16 if unit else config["mr"]
        parts = -(-z.ow // most)
        wide = -(-z.ow // parts)  # tiles of a row alike
        high = 1 if unit or wide < z.ow else max(1, min(z.oh, most // wide))
        return {
            "PRECISION": int(self._integer), "GAUSS": int(self._gauss), "RELU": 0, "LAST": int(self._last),
            "MATRIX": int(self._matrix), "BATCH": z.n, "ROWS": z.k, "CHANNELS": z.c, "HEIGHT": z.h, "WIDTH": z.w,
            "TAPS_H": z.r, "TAPS_W": z.s, "STRIDE": z.stride[0], "PADDING": z.padding[0], "UNIT": unit, "TH": high,
            "TW": wide, "MT": mt, "NV": nv,
        }  # fmt: skip

    def blocks(self, config: Mapping[str, int]) -> tuple[int, int, int]:
        """Cells of the sum, tiles, and panels of a block."""
        return -(-self._depth(config["unit"]) // config["kb"]), config["mc"], config["nc"]

    def emit(self, config: Config, target: str | Machine = "host") -> str:
        """The kernel as readable C, its blocks filled in."""
        text = super().emit(config, target)
        named = dict(zip(("unit", "mr", "nv", "kb", "mc", "nc"), config, strict=True))
        return _with_blocks(text, self.blocks(named))

    def program(self, config: Config, m: Machine) -> tuple[str, list[str]]:
        """One build for all blocks of a tile: they are arguments."""
        named = dict(zip(self.knobs(m), config, strict=True))
        text, _ = super().program((*config[:3], 1, 1, 1), m)
        return f"#define READ_BLOCKS\n{_with_blocks(text, (1, 1, 1))}", [str(b) for b in self.blocks(named)]

    def estimate(self, config: Mapping[str, int], m: Machine) -> float:
        """Cycles: products, loads or latency, whichever is longest, and what is read and written between blocks."""
        z, unit, nv = self.sizes, config["unit"], config["nv"]
        lanes, pixels = 16 if unit else m.lanes, z.n * z.oh * z.ow
        panels, dots = -(-z.k // (nv * lanes)), self._dots(unit)
        depth = self._depth(unit)
        if unit:
            mt = config["mr"] // 16
            tiles = z.n * z.oh * -(-z.ow // 16) / mt
            per = max(_CYCLES_A_DOT * mt * nv * dots, 8.0 * (mt + nv) * dots)
            return float(tiles * panels * (depth * per + 400 * config["kb"]) + pixels * z.c)
        mr = config["mr"]
        tiles = z.n * z.oh * -(-z.ow // mr) if mr <= z.ow else z.n * -(-z.oh * z.ow // mr)
        per = max(mr * nv / 2, (mr + nv) / 2, 4.0) * dots
        return float(tiles * panels * (depth * per + 2 * mr * nv * config["kb"]))

    def traffic(self, config: Mapping[str, int], m: Machine) -> dict[str, float]:
        """Bytes read and written at each level, by the blocks of the loop nest."""
        z, unit = self.sizes, config["unit"]
        pixels, cell = z.n * z.oh * z.ow, 64 if unit else 4
        lanes, planes = 16 if unit else m.lanes, (3 if self._gauss else 1) * (1 if self._integer or not unit else 3)
        depth = self._depth(unit) * cell * planes
        return {
            "weights": float(z.k * depth * -(-pixels // (config["mr"] * config["mc"]))),
            "pixels": float(pixels * depth * -(-z.k // (config["nv"] * lanes * config["nc"]))),
            "sums": 4.0 * z.k * pixels * (2 * config["kb"] - 1) * (2 if self._gauss else 1),
        }


def _with_blocks(text: str, blocks: tuple[int, int, int]) -> str:
    head, mark, rest = text.partition("#define PRECISION")
    names = "".join(f"#define {name} {value}\n" for name, value in zip(("KC", "MC", "NC"), blocks, strict=True))
    return f"{head}{names}{mark}{rest}"


@dataclass(frozen=True)
class Conv2d(Product):
    """A convolution without groups; int8 products are summed in int32.

    fp32 on the matrix unit multiplies each number as three bf16 pieces: the error is that of fp32 sums, but infinite
    inputs give NaN. Tune with ``unit`` 0 where that matters.

    Args:
        sizes: of the convolution; stride and padding alike along both axes.
        dtype: ``"float32"`` or ``"int8"``.
        layout: ``"nchw"``, or ``"nhwc"`` (torch's channels_last): nothing is turned around then.

    Raises:
        ConfigError: groups, different strides, or sums that could leave int32.
    """

    dtype: Dtype = "float32"
    layout: Literal["nchw", "nhwc"] = "nchw"

    def __post_init__(self) -> None:
        super().__post_init__()
        z = self.sizes
        if self.dtype not in ("float32", "int8") or self.layout not in ("nchw", "nhwc"):
            raise ConfigError(f"{self.dtype!r} in {self.layout!r}: known are float32 and int8 in nchw and nhwc")
        # VNNI adds 128 to activations: partial sums are twice as large as the result.
        if self.dtype == "int8" and 2 * z.c * z.r * z.s << 14 > _MOST_INT32:
            raise ConfigError(f"sums of {z.c * z.r * z.s} int8 products can leave int32: split the channels")

    @property
    def name(self) -> str:
        """Operator and sizes."""
        z, last = self.sizes, " nhwc" if self._last else ""
        return (
            f"conv2d{last} {self.dtype} {z.n}x{z.c}x{z.h}x{z.w} k{z.k} {z.r}x{z.s} stride {z.stride[0]} "
            f"padding {z.padding[0]}"
        )

    @property
    def _integer(self) -> bool:
        return self.dtype == "int8"

    @property
    def _last(self) -> bool:
        return self.layout == "nhwc"

    @property
    def signature(self) -> Signature:
        """Images, (k, c, r, s), and images."""
        z = self.sizes
        x, out = ((z.n, z.c, z.h, z.w), (z.n, z.k, z.oh, z.ow))
        if self._last:
            x, out = ((z.n, z.h, z.w, z.c), (z.n, z.oh, z.ow, z.k))
        return Signature(x, self.dtype, (z.k, z.c, z.r, z.s), out, "int32" if self._integer else "float32")

    def reference(self, *operands: Any) -> Any:
        """Images and (k, c, r, s) to images, fp32 or int32."""
        import torch

        x, w = operands
        wide = torch.float64 if self._integer else torch.float32
        x = x.permute(0, 3, 1, 2) if self._last else x
        out = torch.nn.functional.conv2d(x.to(wide), w.to(wide), None, self.sizes.stride, self.sizes.padding)
        out = out.permute(0, 2, 3, 1).contiguous() if self._last else out
        return out.to(torch.int32) if self._integer else out


@dataclass(frozen=True)
class Gemm(Conv2d):
    """The product of activations (m, k) and weights (k, n); int8 and fp32 as in `Conv2d`.

    Make one with `Gemm.of`. A linear layer has the weights ``layer.weight.T``.
    """

    layout: Literal["nchw", "nhwc"] = "nhwc"

    @classmethod
    def of(cls, m: int, n: int, k: int, dtype: Dtype = "float32") -> Gemm:
        """Activations (m, k) times weights (k, n)."""
        return cls(ConvSizes.gemm(m, n, k), dtype)

    @property
    def name(self) -> str:
        """Operator and sizes."""
        return f"gemm {self.dtype} {self.sizes.w}x{self.sizes.k}x{self.sizes.c}"

    @property
    def _matrix(self) -> bool:
        return True

    @property
    def signature(self) -> Signature:
        """(m, k), (k, n), and (m, n)."""
        z = self.sizes
        return Signature((z.w, z.c), self.dtype, (z.c, z.k), (z.w, z.k), "int32" if self._integer else "float32")

    def reference(self, *operands: Any) -> Any:
        """(m, k) and (k, n) to (m, n), fp32 or int32."""
        import torch

        x, w = operands
        return (x.double() @ w.double()).to(torch.int32) if self._integer else x @ w
