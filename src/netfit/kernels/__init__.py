"""Native code, one way of building and registering it.

C sources are compiled at first use by the compiler found (or the packaged zig of the extra `cc`), cached by
content, and registered as torch operators beside a plain torch reference. Without a compiler the reference
runs; `NETFIT_CC` names a compiler, and `NETFIT_CC=none` asks for the references. Operators for a runtime are C++
(`NETFIT_CXX`) and have no reference: without a compiler their layers cannot run there.

Names are imported on first use (SPEC 1): `compile_c`, `toolchain` and `netfit.kernels.peers` load no torch.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
