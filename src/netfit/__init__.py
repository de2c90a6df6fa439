"""netfit fits neural networks to the hardware they run on.

Names are imported on first use (SPEC 1), so ``import netfit`` costs no more than a bare Python.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
