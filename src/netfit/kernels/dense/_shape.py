"""Sizes of a convolution, and the blocks it is computed in."""

from dataclasses import dataclass
from typing import Literal

from netfit.env import caches
from netfit.errors import ConfigError
from netfit.kernels.dense._library import library

Precision = Literal["fp32", "int8", "bits"]
CHANNELS: dict[str, int] = {"fp32": 1, "int8": 4, "bits": 32}  # input channels of one 32-bit word


@dataclass(frozen=True)
class ConvShape:
    """Sizes of a 2-d convolution without groups; a product of matrices is one of them.

    Args:
        rows: output channels.
        channels: input channels.
        height, width: of the input, in pixels.
        taps_h, taps_w: of the kernel.
        stride, padding, dilation: the same along both axes.
        batch: images.

    Raises:
        ConfigError: a size is not positive, or the kernel is larger than the padded input.

    >>> ConvShape(64, 3, 224, 224, 7, 7, stride=2, padding=3).pixels
    12544
    >>> ConvShape.gemm(12, 960, 240).macs == 12 * 960 * 240
    True
    """

    rows: int
    channels: int
    height: int
    width: int
    taps_h: int = 1
    taps_w: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "padding" else 1
            if not least <= value < 2**31:
                raise ConfigError(f"{name} = {value} of a convolution: allowed are whole numbers from {least}")
        if self.out_h < 1 or self.out_w < 1:
            raise ConfigError(
                f"a kernel of {self.taps_h}x{self.taps_w} with dilation {self.dilation} does not fit into "
                f"{self.height}x{self.width} with padding {self.padding}"
            )

    @classmethod
    def gemm(cls, m: int, n: int, k: int) -> "ConvShape":
        """The product (m, k) x (k, n): one tap over an image of n pixels and k channels."""
        return cls(m, k, 1, n)

    @property
    def out_h(self) -> int:
        """Rows of pixels of the result."""
        return (self.height + 2 * self.padding - self.dilation * (self.taps_h - 1) - 1) // self.stride + 1

    @property
    def out_w(self) -> int:
        """Pixels in a row of the result."""
        return (self.width + 2 * self.padding - self.dilation * (self.taps_w - 1) - 1) // self.stride + 1

    @property
    def pixels(self) -> int:
        """Pixels of one image of the result."""
        return self.out_h * self.out_w

    @property
    def depth(self) -> int:
        """Length of each sum, in values."""
        return self.channels * self.taps_h * self.taps_w

    @property
    def is_product(self) -> bool:
        """Whether it is a product of matrices as it stands: one tap, every pixel, no padding."""
        return self.taps_h == self.taps_w == self.stride == 1 and not self.padding

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole batch."""
        return self.batch * self.rows * self.pixels * self.depth

    def words(self, precision: str) -> int:
        """Length of each sum in 32-bit words."""
        return -(-self.channels // CHANNELS[precision]) * self.taps_h * self.taps_w


@dataclass(frozen=True)
class Blocking:
    """Loop nest of the kernels, from the inside: a tile of sums in registers, then blocks that fit the caches.

    Attributes:
        tile_rows: output channels of a tile of sums.
        tile_vectors: vectors of pixels of a tile.
        lanes: 32-bit words of a vector.
        kc: words of the sum of a block.
        mc: output channels of a block.
        nc: pixels of a block.
    """

    tile_rows: int
    tile_vectors: int
    lanes: int
    kc: int
    mc: int
    nc: int


def blocking(shape: ConvShape, precision: str) -> Blocking:
    """Blocks for this machine's caches: a panel of pixels in three quarters of L1, weights in half of L2.

    Args:
        shape: of the convolution.
        precision: ``"fp32"``, ``"int8"`` or ``"bits"``.

    Raises:
        ConfigError: no such precision.
        TargetUnavailable: there is no C compiler.
    """
    code = library(precision)
    rows, vectors, lanes = code.dense_tile_rows(), code.dense_tile_vectors(), code.dense_lanes()
    size = caches()
    l1, l2 = size["l1"], size.get("l2", 8 * size["l1"])
    pixels = vectors * lanes
    depth = shape.words(precision)
    longest = max(1, min(code.dense_most_kc(), l1 * 3 // 4 // (4 * pixels)))
    kc = -(-depth // -(-depth // longest))  # equal blocks: a short last one would not pay for its sums
    mc = max(1, l2 // 2 // (4 * kc * rows)) * rows
    nc = min(max(1, l2 // 4 // (4 * kc * pixels)), -(-shape.pixels // pixels)) * pixels
    return Blocking(rows, vectors, lanes, kc, mc, nc)
