"""Operators that OpenVINO lacks, as a library it loads."""

from pathlib import Path

from netfit.errors import TargetUnavailable, require
from netfit.kernels._compile import compile_cpp
from netfit.kernels._ops import source

_LIBRARIES = ("libopenvino.so*", "libopenvino_onnx_frontend.so*")


def openvino_extension() -> Path:
    """Library with the operator ``BitConv`` of the domain ``netfit``, for ``openvino.Core.add_extension``.

    Built at first use against the headers that OpenVINO's wheel ships, for this very version and processor.
    ``BitConv(x, weight, thresholds, scale, bias)`` is a convolution of 1- or 2-bit codes with weights of -1 and +1:

    - x, fp32 (n, channels, height, width). Its code q is the number of thresholds it reaches.
    - weight, uint8: 64-bit words (out_channels, words, kernel height, kernel width), bit c of word w standing for +1 at
      input channel 64 w + c.
    - thresholds, fp32 (2^bits - 1,), ascending.
    - scale and bias, fp32 (out_channels,): the result is sum((q - zero_point) * sign) * scale + bias, and padding adds
      nothing to the sum.

    Its attributes are kernel_shape, strides, pads and dilations as in ONNX, bits (1 or 2), zero_point (a code) and relu
    (1: negative results become 0).

    Raises:
        MissingExtraError: OpenVINO is not installed.
        TargetUnavailable: there is no C++ compiler, or this OpenVINO came without headers.
        TargetError: the library cannot be built.
    """
    openvino = require("openvino", "export")
    home = Path(str(openvino.__file__)).parent
    found = [next(iter(sorted((home / "libs").glob(pattern))), None) for pattern in _LIBRARIES]
    libraries = [str(path) for path in found if path is not None]
    if len(libraries) < len(_LIBRARIES) or not (home / "include" / "openvino" / "core" / "op_extension.hpp").is_file():
        raise TargetUnavailable(f"OpenVINO in {home} came without headers or libraries: install its wheel from PyPI")
    version = f'-DNETFIT_OPENVINO="{openvino.__version__}"'
    # The reader of ONNX files is loaded by OpenVINO only when it is needed; the library needs it at once.
    link = [f"-Wl,-rpath,{home / 'libs'}", "-Wl,--no-as-needed", *libraries]
    return compile_cpp(source("tile.h", "bit_conv.cpp"), "bit_conv", [version, f"-I{home / 'include'}", *link])
