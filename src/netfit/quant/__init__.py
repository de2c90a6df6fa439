"""Number formats, once.

Two faces. Formats with a straight-through gradient, for training and for scoring what a runtime will
compute: `FakeQuantize`, `fake_quantize` and the format objects. Packed storage without a gradient, for what
is kept rather than computed with: `quantize_groups` and `pack_bits`.
"""

from netfit.quant._affine import Affine, fake_quantize
from netfit.quant._fake_quantize import FakeQuantize
from netfit.quant._formats import Binary, FixedPoint, Format, Logarithmic, PowerOfTwo, Ternary
from netfit.quant._pack import Groups, dequantize_groups, pack_bits, quantize_groups, unpack_bits

__all__ = [
    "Affine",
    "Binary",
    "FakeQuantize",
    "FixedPoint",
    "Format",
    "Groups",
    "Logarithmic",
    "PowerOfTwo",
    "Ternary",
    "dequantize_groups",
    "fake_quantize",
    "pack_bits",
    "quantize_groups",
    "unpack_bits",
]
