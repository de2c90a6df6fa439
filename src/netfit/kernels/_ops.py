"""Registration of a kernel as a torch operator that always has a torch reference."""

import functools
import os
import warnings
from collections.abc import Callable
from importlib import resources
from typing import Any

from netfit.errors import TargetError


def custom_op(
    name: str, reference: Callable[..., Any], *, native: Callable[[], Callable[..., Any]], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Register `torch.ops.netfit.<name>`: native code for CPU tensors, the reference for all others.

    The native code is built at the first call on a CPU tensor. Where that fails for want of a working
    compiler the reference takes its place, and one warning says so (none when NETFIT_CC=none asks for it).

    Args:
        name: of the operator.
        reference: what it computes, in plain torch; its annotations are the operator's schema.
        native: builds the native code; returns a callable that takes the arguments of `reference`.
        fake: shapes and dtypes of the result, for tracing.

    Returns:
        The operator, called like `reference`.
    """

    import torch  # only here: `source` serves rooms that work without torch

    @functools.cache
    def built() -> Callable[..., Any]:
        try:
            return native()
        except TargetError as e:
            warn_once(str(e))
            return reference

    def on_cpu(*args: Any) -> Any:
        # Asked on every call, so that a test or a user can switch kernels off without a new process.
        return (reference if os.environ.get("NETFIT_CC") == "none" else built())(*args)

    op = torch.library.custom_op(f"netfit::{name}", reference, mutates_args=())
    op.register_fake(fake)
    op.register_kernel("cpu")(on_cpu)
    return op


def source(*files: str) -> str:
    """Text of C files that netfit ships, one behind the other."""
    folder = resources.files("netfit.kernels").joinpath("csrc")
    return "\n".join(folder.joinpath(file).read_text(encoding="utf-8") for file in files)


@functools.cache
def warn_once(reason: str) -> None:
    warnings.warn(f"kernels run their slower torch reference: {reason}", RuntimeWarning, stacklevel=2)
