"""``model.safetensors``: bounded before it is parsed, hashed before it is used."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netfit.errors import ArtifactError

from ._manifest import Member, check_size, damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MAX_TENSORS = 100_000
MAX_HEADER_BYTES = 32 << 20  # 100,000 entries of some 300 bytes; the format itself allows 100 MB
MAX_DIMENSIONS = 32

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def save_tensors(artifact: Path, path: Path, tensors: "Mapping[str, Tensor] | Mapping[str, NDArray[Any]]") -> None:
    """Write tensors to the new file `path`; `artifact` is where it will be, for the errors."""
    from safetensors import SafetensorError

    try:
        if any(hasattr(tensor, "layout") for tensor in tensors.values()):
            from safetensors.torch import save_file

            save_file(_storable(artifact, tensors), path)
        else:  # arrays: a process that works without torch does not load it here
            from safetensors.numpy import save_file as save_arrays

            save_arrays(_storable_arrays(artifact, tensors), path)
    except SafetensorError as e:  # the library turns a full disk into its own error
        raise ArtifactError(f"cannot write {artifact}: {e}") from e
    with path.open("rb") as file:
        os.fsync(file.fileno())


def load_tensors(home: Path, entry: Member, framework: Literal["pt", "np"]) -> dict[str, Any]:
    """Check the file against its manifest entry and the limits, then copy its tensors into memory."""
    from safetensors import SafetensorError, safe_open

    place = check_size(home, "model.safetensors", entry)
    try:
        _check_header(place, entry.size)
        with place.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise damaged(place)
        with safe_open(place, framework=framework, device="cpu") as file:
            return {name: _read_one(place, file, name) for name in file.keys()}  # noqa: SIM118  no mapping
    # What the parser finds wrong, and what torch says of shapes that overflow (with a C++ trace: one line of it)
    except (OSError, SafetensorError, RuntimeError, OverflowError, ValueError, TypeError) as e:
        if isinstance(e, ArtifactError):
            raise
        raise ArtifactError(f"{place} cannot be read: {str(e).partition(chr(10))[0]}") from e


def _check_header(place: Path, size: int) -> None:
    """Bound what the parser will allocate: the header's length, and how many tensors it can name."""
    with place.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            bound = f"the file holds {size}, the limit is {MAX_HEADER_BYTES}"
            raise ArtifactError(f"{place} claims a header of {length:.4g} bytes; {bound}")
        header = file.read(length)
    # Every tensor is an object of its own, so counting braces counts them without parsing.
    if (count := header.count(b"{") - 1) > MAX_TENSORS:
        raise ArtifactError(f"{place} names {count} tensors; the limit is {MAX_TENSORS}")


def _read_one(place: Path, file: "safe_open", name: str) -> Any:  # type: ignore[name-defined]  # noqa: F821
    view = file.get_slice(name)
    if view.get_dtype() not in _DTYPES:
        raise ArtifactError(f"{place}: tensor {name!r} has the unknown type {view.get_dtype()}")
    if len(view.get_shape()) > MAX_DIMENSIONS:
        raise ArtifactError(f"{place}: tensor {name!r} has more than {MAX_DIMENSIONS} dimensions")
    # A copy: the parser's tensors are views of the mapped file and would change, or crash, with it.
    found = file.get_tensor(name)
    return found.clone() if hasattr(found, "clone") else found.copy()


def _storable_arrays(artifact: Path, arrays: "Mapping[str, Any]") -> "dict[str, NDArray[Any]]":
    import numpy as np

    if len(arrays) > MAX_TENSORS:
        raise ArtifactError(f"cannot write {artifact}: {len(arrays)} arrays; the limit is {MAX_TENSORS}")
    for name, array in arrays.items():
        if name == "__metadata__" or str(array.dtype) not in _DTYPES.values():
            raise ArtifactError(f"cannot write {artifact}: array {name!r} ({array.dtype}) has no form in safetensors")
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _storable(artifact: Path, tensors: "Mapping[str, Any]") -> "dict[str, Tensor]":
    import torch

    if len(tensors) > MAX_TENSORS:
        raise ArtifactError(f"cannot write {artifact}: {len(tensors)} tensors; the limit is {MAX_TENSORS}")
    allowed = {getattr(torch, dtype) for dtype in _DTYPES.values()}
    ready: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        dense = tensor.layout == torch.strided and not tensor.is_meta
        if name == "__metadata__" or tensor.dtype not in allowed or not dense:
            kind = f"tensor {name!r} ({tensor.dtype}, {tensor.layout}, {tensor.device})"
            raise ArtifactError(f"cannot write {artifact}: {kind} has no form in safetensors")
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        # Tied weights: the format stores every name by itself, so the second one gets memory of its own.
        ready[name] = plain.clone() if storage in seen and storage else plain
        seen.add(storage)
    return ready
