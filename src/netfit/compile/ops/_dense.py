"""Bit-serial products on the blocked kernels of `kernels.dense`, and depthwise convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netfit.errors import ConfigError

from .._sizes import ConvSizes
from .._space import Config
from ._machine import Machine
from ._operator import Operator, Signature

__all__ = ["BitConv2d", "DepthwiseConv2d"]


@dataclass(frozen=True)
class BitConv2d(Operator):
    """A convolution of unsigned codes of ``planes`` bits with weights of -1 and +1, without groups, summed in int32.

    Args:
        sizes: of the convolution; stride and padding alike along both axes.
        planes: bits of a code.

    Raises:
        ConfigError: groups, different strides, or sums that could leave int32.
    """

    sizes: ConvSizes
    planes: int = 1
    files = ("vectors.h", "dense.c", "op_bits.c")

    def __post_init__(self) -> None:
        z = self.sizes
        if z.groups != 1 or z.stride[0] != z.stride[1] or z.padding[0] != z.padding[1]:
            raise ConfigError(f"{z}: generated are convolutions without groups, alike along both axes")
        if not 1 <= self.planes <= 8:
            raise ConfigError(f"codes of {self.planes} bits: 1 to 8")
        if 2 * z.c * z.r * z.s << self.planes > 2**31 - 1:
            raise ConfigError(f"sums of {z.c * z.r * z.s} products can leave int32: split the channels")

    @property
    def name(self) -> str:
        """Operator and sizes."""
        z = self.sizes
        where = f"stride {z.stride[0]} padding {z.padding[0]}"
        return f"conv2d bits{self.planes} {z.n}x{z.c}x{z.h}x{z.w} k{z.k} {z.r}x{z.s} {where}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.sizes.macs

    @property
    def depth(self) -> int:
        """Words of a sum."""
        return -(-self.sizes.c // 32) * self.sizes.r * self.sizes.s

    def knobs(self, m: Machine) -> dict[str, tuple[int, ...]]:
        """Tile of sums (rows, vectors), words of a block of the sum, tiles of rows and of pixels of a block."""
        longest = min(512, self.depth)
        kc = sorted({max(1, -(-self.depth // parts)) for parts in range(1, 17)} & set(range(1, longest + 1))) or [
            longest
        ]
        return {
            "mr": (1, 2, 3, 4, 6, 8, 10, 12, 14), "nv": (1, 2, 3, 4), "kc": tuple(kc),
            "mc": (1, 2, 4, 8, 16), "nc": (1, 2, 4, 8),
        }  # fmt: skip

    def why(self, config: Mapping[str, int], m: Machine) -> str | None:
        """Registers of the tile, and blocks within the caches."""
        mr, nv, kc = config["mr"], config["nv"], config["kc"]
        if mr * nv + nv + 1 > m.registers:
            return "registers"
        if 4 * kc * nv * m.lanes > m.l1 * 3 // 4:
            return "l1"
        if 4 * kc * mr * config["mc"] > m.l2 * 3 // 4 or 4 * kc * nv * m.lanes * config["nc"] > m.l2 // 2:
            return "l2"
        if (config["mc"] - 1) * mr >= self.sizes.k and config["mc"] > 1:
            return "rows"
        return None

    def default(self, m: Machine) -> Config:
        """Eight rows and three vectors where registers allow, the longest block that fits."""
        mr, nv = (8, 3) if m.registers == 32 else (4, 2)
        knobs = self.knobs(m)
        fitting = [kc for kc in knobs["kc"] if self.why({"mr": mr, "nv": nv, "kc": kc, "mc": 1, "nc": 1}, m) is None]
        kc = (fitting or [knobs["kc"][0]])[-1]
        mc = max(c for c in knobs["mc"] if c == 1 or (4 * kc * mr * c <= m.l2 // 2 and (c - 1) * mr < self.sizes.k))
        nc = max(c for c in knobs["nc"] if c == 1 or 4 * kc * nv * m.lanes * c <= m.l2 // 4)
        return mr, nv, kc, mc, nc

    def defines(self, config: Mapping[str, int], m: Machine) -> dict[str, int]:
        """Sizes, tile and blocks."""
        z, mr, nv = self.sizes, config["mr"], config["nv"]
        return {
            "PRECISION": 2, "BATCH": z.n, "ROWS": z.k, "CHANNELS": z.c, "HEIGHT": z.h,
            "WIDTH": z.w, "TAPS_H": z.r, "TAPS_W": z.s, "STRIDE": z.stride[0], "PADDING": z.padding[0],
            "PLANES": self.planes, "MR": mr, "NV": nv, "KC": config["kc"], "MC": config["mc"] * mr,
            "NC": config["nc"] * nv * m.lanes,
        }  # fmt: skip

    def program(self, config: Config, m: Machine) -> tuple[str, list[str]]:
        """One build for all blocks of a tile: they are arguments."""
        mr, nv, kc, mc, nc = config
        text, _ = super().program((mr, nv, self.knobs(m)["kc"][0], 1, 1), m)
        return f"#define READ_BLOCKS\n{text}", [str(kc), str(mc * mr), str(nc * nv * m.lanes)]

    def estimate(self, config: Mapping[str, int], m: Machine) -> float:
        """Cycles: products, loads or latency, whichever is longest, and what is read and written between blocks."""
        z, mr, nv = self.sizes, config["mr"], config["nv"]
        pixels, lanes = z.n * z.oh * z.ow, m.lanes
        padded = -(-z.k // mr) * mr * -(-z.oh * z.ow // (nv * lanes)) * nv * lanes * z.n * self.depth / lanes
        per = max(0.5, (mr + nv) / (2 * mr * nv), 4.0 / (mr * nv))
        blocks = -(-self.depth // config["kc"])
        return padded * per * self.planes + (2 * blocks * z.k * pixels + 2 * pixels * self.depth) / lanes

    def traffic(self, config: Mapping[str, int], m: Machine) -> dict[str, float]:
        """Bytes read and written at each level, by the blocks of the loop nest."""
        z, pixels = self.sizes, self.sizes.n * self.sizes.oh * self.sizes.ow
        columns = config["nc"] * config["nv"] * m.lanes
        blocks = -(-self.depth // config["kc"])
        return {
            "weights": 4.0 * z.k * self.depth * -(-z.oh * z.ow // columns) * z.n,
            "pixels": 4.0 * pixels * self.depth * 2,
            "sums": 4.0 * z.k * pixels * (2 * blocks - 1),
        }

    @property
    def signature(self) -> Signature:
        """Codes (n, c, h, w), signs (k, c, r, s), and sums (n, k, oh, ow)."""
        z = self.sizes
        return Signature((z.n, z.c, z.h, z.w), "uint8", (z.k, z.c, z.r, z.s), (z.n, z.k, z.oh, z.ow), "int32", "int8")

    def reference(self, *operands: Any) -> Any:
        """(n, c, h, w) and (k, c, r, s) to (n, k, oh, ow), int32."""
        import torch

        x, w = operands
        codes, signs = (x & (2**self.planes - 1)).double(), torch.where(w > 0, 1.0, -1.0).double()
        return torch.nn.functional.conv2d(codes, signs, None, self.sizes.stride, self.sizes.padding).to(torch.int32)


@dataclass(frozen=True)
class DepthwiseConv2d(Operator):
    """A convolution of every channel with its own taps, channels last; int8 products are summed in int32.

    There is no sum over channels, so bits of channels cannot be packed into words: codes are multiplied as int8.

    Args:
        sizes: with as many groups as channels.
        dtype: ``"float32"`` or ``"int8"``.

    Raises:
        ConfigError: other groups, or different strides along the axes.
    """

    sizes: ConvSizes
    dtype: Literal["float32", "int8"] = "float32"
    files = ("vectors.h", "op_depthwise.c")

    def __post_init__(self) -> None:
        z = self.sizes
        alike = z.stride[0] == z.stride[1] and z.padding[0] == z.padding[1]
        if not z.groups == z.c == z.k or not alike or self.dtype not in ("float32", "int8"):
            raise ConfigError(f"{z}: a depthwise convolution has a group for each channel, alike along both axes")

    @property
    def name(self) -> str:
        """Operator and sizes."""
        z = self.sizes
        return f"depthwise {self.dtype} {z.n}x{z.c}x{z.h}x{z.w} {z.r}x{z.s} stride {z.stride[0]} padding {z.padding[0]}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.sizes.macs

    def knobs(self, m: Machine) -> dict[str, tuple[int, ...]]:
        """Outputs of a row that share weights."""
        return {"tile_w": (1, 2, 3, 4, 6, 8, 12, 16)}

    def why(self, config: Mapping[str, int], m: Machine) -> str | None:
        """Registers of the sums."""
        return "registers" if config["tile_w"] + 2 > m.registers else None

    def default(self, m: Machine) -> Config:
        """Four outputs."""
        return (4,)

    def defines(self, config: Mapping[str, int], m: Machine) -> dict[str, int]:
        """Sizes and tile."""
        z = self.sizes
        return {
            "PRECISION": int(self.dtype == "int8"), "BATCH": z.n, "CHANNELS": z.c, "HEIGHT": z.h, "WIDTH": z.w,
            "TAPS_H": z.r, "TAPS_W": z.s, "STRIDE": z.stride[0], "PADDING": z.padding[0], "TILE_W": config["tile_w"],
        }  # fmt: skip

    def traffic(self, config: Mapping[str, int], m: Machine) -> dict[str, float]:
        """Bytes: every tap reads its pixels once, every tile its weights."""
        z = self.sizes
        size = 4.0 if self.dtype == "float32" else 1.0
        tiles = z.n * z.oh * -(-z.ow // config["tile_w"])
        return {
            "weights": 4.0 * tiles * z.c * z.r * z.s, "pixels": size * z.macs, "sums": 4.0 * z.n * z.oh * z.ow * z.c,
        }  # fmt: skip

    @property
    def signature(self) -> Signature:
        """(n, h, w, c), (c, r, s), and (n, oh, ow, c)."""
        z, kind = self.sizes, "int32" if self.dtype == "int8" else "float32"
        return Signature((z.n, z.h, z.w, z.c), self.dtype, (z.c, z.r, z.s), (z.n, z.oh, z.ow, z.c), kind)

    def reference(self, *operands: Any) -> Any:
        """(n, h, w, c) and (c, r, s) to (n, oh, ow, c), fp32 or int32."""
        import torch

        x, w = operands
        wide = torch.float32 if self.dtype == "float32" else torch.float64
        z, image = self.sizes, x.permute(0, 3, 1, 2).to(wide)
        out = torch.nn.functional.conv2d(image, w[:, None].to(wide), None, z.stride, z.padding, 1, z.groups)
        out = out.permute(0, 2, 3, 1).contiguous()
        return out if self.dtype == "float32" else out.to(torch.int32)
