"""Train in less memory: what autograd saves, kept by codecs, and plans that meet a budget in bytes.

The unit is the tensor that an operation saves for its backward pass, not the layer. Forward passes stay exact.
"""

from ._batch import max_batch_size
from ._blocks import recompute_blocks
from ._budget import BudgetError
from ._compress import compress_saved, compressed_saved
from ._fidelity import grad_fidelity
from ._inventory import Inventory, inventory
from ._measure import MemoryReport, measure
from ._plan import MemoryPlan, plan
from ._process import tune_allocator
from ._save_as import SaveAs
from ._step import TrainingStep

__all__ = [
    "BudgetError",
    "Inventory",
    "MemoryPlan",
    "MemoryReport",
    "SaveAs",
    "TrainingStep",
    "compress_saved",
    "compressed_saved",
    "grad_fidelity",
    "inventory",
    "max_batch_size",
    "measure",
    "plan",
    "recompute_blocks",
    "tune_allocator",
]
