"""Sizes of a convolution, in elements: what is embedded, tuned and generated."""

from dataclasses import dataclass

from netfit.errors import ConfigError

__all__ = ["ConvSizes"]


@dataclass(frozen=True)
class ConvSizes:
    """A 2-d convolution; a product of matrices is one with a single tap over an image of height 1.

    Args:
        n: images.
        c, h, w: channels, rows and columns of the input.
        k: channels of the result.
        r, s: rows and columns of taps.
        stride, padding: (rows, columns).
        groups: independent parts of the channels.

    Raises:
        ConfigError: a size is not positive, groups do not divide the channels, or the kernel does not fit.

    >>> ConvSizes(1, 64, 56, 56, 64, 3, 3, padding=(1, 1)).macs
    115605504
    """

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int = 1
    s: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("n", "c", "h", "w", "k", "r", "s", "groups")}
        sizes |= {"stride": min(self.stride), "padding": min(self.padding) + 1}
        for name, value in sizes.items():
            if not 1 <= value < 2**24:
                raise ConfigError(f"{name} = {getattr(self, name)} of a convolution is out of range")
        if self.c % self.groups or self.k % self.groups:
            raise ConfigError(f"groups = {self.groups} do not divide {self.c} and {self.k} channels")
        if self.oh < 1 or self.ow < 1:
            raise ConfigError(f"a kernel of {self.r}x{self.s} does not fit into {self.h}x{self.w}")

    @classmethod
    def gemm(cls, m: int, n: int, k: int) -> "ConvSizes":
        """The product (m, k) x (k, n) as a convolution over m pixels of k channels."""
        return cls(1, k, 1, m, n)

    @classmethod
    def from_deepbench(cls, row: dict[str, int]) -> "ConvSizes":
        """From a row of :func:`netfit.data.deepbench.deepbench`."""
        n, c, h, w, k, r, s = (row[name] for name in ("n", "c", "h", "w", "k", "filter_h", "filter_w"))
        return cls(n, c, h, w, k, r, s, (row["stride_h"], row["stride_w"]), (row["pad_h"], row["pad_w"]))

    @classmethod
    def from_text(cls, text: str) -> "ConvSizes":
        """From ``"1x64x56x56,k=64,r=3,s=3,stride=1,padding=1"``; the first part is n, c, h and w.

        Raises:
            ConfigError: the text cannot be read.

        >>> ConvSizes.from_text("1x64x56x56,k=128,r=3,padding=1").ow
        56
        """
        head, *rest = (part.strip() for part in text.removeprefix("conv:").split(","))
        try:
            n, c, h, w = (int(x) for x in head.split("x"))
            settings = {name.strip(): int(value) for name, value in (part.split("=") for part in rest)}
            r = settings.pop("r", 1)
            s, k = settings.pop("s", r), settings.pop("k")
            stride, padding, groups = (
                settings.pop(name, d) for name, d in (("stride", 1), ("padding", 0), ("groups", 1))
            )
        except (ValueError, KeyError) as e:
            raise ConfigError(f"{text!r} is no convolution: write such as 1x64x56x56,k=64,r=3,padding=1") from e
        if settings:
            raise ConfigError(f"{text!r}: unknown {sorted(settings)[0]!r}; known: groups, k, padding, r, s, stride")
        return cls(n, c, h, w, k, r, s, (stride, stride), (padding, padding), groups)

    @property
    def oh(self) -> int:
        """Rows of the result."""
        return (self.h + 2 * self.padding[0] - self.r) // self.stride[0] + 1

    @property
    def ow(self) -> int:
        """Columns of the result."""
        return (self.w + 2 * self.padding[1] - self.s) // self.stride[1] + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.n * self.k * self.oh * self.ow * (self.c // self.groups) * self.r * self.s

    @property
    def axes(self) -> dict[str, int]:
        """Extents of the iteration axes of one group."""
        return {
            "n": self.n, "oh": self.oh, "ow": self.ow, "k": self.k // self.groups, "c": self.c // self.groups,
            "r": self.r, "s": self.s,
        }  # fmt: skip
