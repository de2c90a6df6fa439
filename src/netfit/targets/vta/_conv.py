"""A convolution as the accelerator sees it, in words of its memories, and the knobs of its loop nest."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import product

from netfit.errors import ConfigError

from ._config import Config

__all__ = ["Conv", "Knobs", "all_knobs", "divisors"]


@dataclass(frozen=True)
class Conv:
    """A convolution in words: batches, input and output channels are counted in blocks of the core.

    Args:
        height, width: of the input, in pixels.
        ci, co: input and output channels, in blocks.
        kh, kw: taps.
        stride_h, stride_w: pixels between two outputs.
        pad_h, pad_w: zeros on each side.
        batch: images, in blocks.

    Raises:
        ConfigError: a size is not positive, or the kernel is larger than the padded image.

    >>> Conv.of(Config(), n=1, c=64, h=56, w=56, k=64, r=3, s=3, padding=1)
    Conv(height=56, width=56, ci=4, co=4, kh=3, kw=3, stride_h=1, stride_w=1, pad_h=1, pad_w=1, batch=1)
    """

    height: int
    width: int
    ci: int
    co: int
    kh: int = 1
    kw: int = 1
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    batch: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (0 if name.startswith("pad") else 1) <= value < 2**24:
                raise ConfigError(f"{name} = {value} of a convolution on a VTA is out of range")
        if self.oh < 1 or self.ow < 1:
            raise ConfigError(
                f"a kernel of {self.kh}x{self.kw} does not fit into {self.height}x{self.width} "
                f"with padding {self.pad_h}, {self.pad_w}"
            )

    @classmethod
    def of(
        cls, config: Config, *, n: int = 1, c: int, h: int, w: int, k: int, r: int = 1, s: int = 1,
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
    ) -> "Conv":  # fmt: skip
        """From sizes in elements: ``n`` images of ``c`` channels, ``k`` kernels of ``r x s`` taps; blocks round up."""
        (sh, sw), (ph, pw) = (x if isinstance(x, tuple) else (x, x) for x in (stride, padding))
        blocks = -(-c // config.block_in), -(-k // config.block_out), -(-n // config.batch)
        return cls(h, w, blocks[0], blocks[1], r, s, sh, sw, ph, pw, blocks[2])

    @property
    def oh(self) -> int:
        """Rows of the result."""
        return (self.height + 2 * self.pad_h - self.kh) // self.stride_h + 1

    @property
    def ow(self) -> int:
        """Columns of the result."""
        return (self.width + 2 * self.pad_w - self.kw) // self.stride_w + 1

    @property
    def padded(self) -> bool:
        """Whether any zeros are added."""
        return bool(self.pad_h or self.pad_w)

    @property
    def products(self) -> int:
        """Calls of the matrix core."""
        return self.batch * self.oh * self.ow * self.ci * self.co * self.kh * self.kw

    @property
    def words(self) -> dict[str, int]:
        """Words in main memory by operand."""
        return {
            "inp": self.batch * self.ci * self.height * self.width,
            "wgt": self.co * self.ci * self.kh * self.kw,
            "out": self.batch * self.co * self.oh * self.ow,
        }


@dataclass(frozen=True, order=True)
class Knobs:
    """Sizes of one tile and the virtual threads that share it.

    Args:
        tile_h, tile_w: outputs of a tile; divisors of the result's rows and columns.
        tile_ci, tile_co: channel blocks of a tile; divisors of the convolution's.
        oc_nthread, h_nthread: 2 gives neighbouring tiles of output channels, or rows, a half of the memories each,
            so that one loads while the other computes.
    """

    tile_h: int
    tile_w: int
    tile_ci: int
    tile_co: int
    oc_nthread: int = 1
    h_nthread: int = 1

    @property
    def threads(self) -> int:
        """Virtual threads in all."""
        return self.oc_nthread * self.h_nthread

    def __iter__(self) -> Iterator[int]:
        return iter(astuple(self))


def divisors(n: int) -> list[int]:
    """All divisors, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [d for d in range(1, n + 1) if n % d == 0]


def all_knobs(conv: Conv) -> list[Knobs]:
    """The whole grid, the last knob fastest."""
    axes = [divisors(conv.oh), divisors(conv.ow), divisors(conv.ci), divisors(conv.co), [1, 2], [1, 2]]
    return [Knobs(*values) for values in product(*axes)]
