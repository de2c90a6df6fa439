"""One measured kernel launch, as every importer makes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["BITS", "KINDS", "Launch"]

# Operator kinds that features distinguish; the number in a feature row is the place in this list.
KINDS = ("kernel", "gemm", "conv2d", "attention", "moe", "elementwise", "reduction")
# Bits of one number by precision.
BITS = {"fp64": 64, "fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "int4": 4, "fp4": 4}


@dataclass(frozen=True)
class Launch:
    """One kernel, or the kernels of one operator, with what was measured.

    Attributes:
        device: name of the GPU.
        app: what it was part of: an application, a network, a configuration of one.
        kernel: name of the kernel or operator.
        kind: one of ``KINDS``; ``"kernel"`` when nobody knows what it computes.
        variant: which implementation, where one operator has several.
        dtype: precision of the arithmetic, such as ``"bf16"``.
        weight_dtype: precision of weights or cached keys, where it differs.
        m: rows of the matrix product; elements of an elementwise operator.
        n: columns of the matrix product; keys of an attention.
        k: length of each sum; head size of an attention.
        count: independent products (batch, heads, experts).
        batch: sequences or tokens that these belong to.
        share: what several of them read together: query heads per key head, tokens that meet one expert.
        skew: how uneven the parts are; 0 when they are equal.
        flops: operations, a multiply-accumulate counts two.
        bytes: operands read and results written, each once.
        grid: thread blocks.
        block: threads of a block.
        shared_bytes: shared memory of a block.
        registers: of a thread.
        counts: executed PTX instructions by opcode, all threads together.
        settings: tuning parameters of the kernel.
        time_s: seconds.
        power_w: watts.
        dataset: input of the application.
        source: where the row comes from.
    """

    device: str
    app: str
    kernel: str
    kind: str = "kernel"
    variant: str = ""
    dtype: str = "fp32"
    weight_dtype: str = ""
    m: int = 1
    n: int = 1
    k: int = 1
    count: int = 1
    batch: int = 1
    share: float = 1.0
    skew: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    shared_bytes: int = 0
    registers: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    time_s: float | None = None
    power_w: float | None = None
    dataset: str = ""
    source: str = ""

    def product(self) -> "Launch":
        """The same launch with the operations and bytes of its matrix product (operands once, result once)."""
        bits = BITS.get(self.dtype, 32)
        weight_bits = BITS.get(self.weight_dtype or self.dtype, 32)
        moved = (self.m * self.k + self.m * self.n) * bits + self.k * self.n * weight_bits
        return replace(self, flops=2.0 * self.m * self.n * self.k * self.count, bytes=moved * self.count / 8)
