"""Which network and which data a kept measurement belongs to."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["tensors_digest"]


def tensors_digest(tensors: Iterable[Tensor]) -> str:
    """Short digest of the bytes of tensors."""
    state = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
