"""Train in less memory: what autograd saves, kept by codecs, and plans that meet a budget in bytes."""

from ._compress import compress_saved, compressed_saved
from ._save_as import SaveAs

__all__ = ["SaveAs", "compress_saved", "compressed_saved"]
