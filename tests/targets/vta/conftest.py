import numpy as np
import pytest
import torch

from netfit.errors import ConfigError
from netfit.kernels import toolchain
from netfit.targets.vta import Config, Conv, all_knobs, why_invalid

if toolchain() is None:
    collect_ignore_glob = ["test_*.py"]


def reference(x, w, stride, padding, shift=8):
    """The convolution with its epilogue, in torch."""
    y = torch.nn.functional.conv2d(torch.tensor(x).double(), torch.tensor(w).double(), None, stride, padding)
    return np.clip(y.long().numpy() >> shift, 0, 127).astype(np.int8)


class Case:
    """A random convolution with a random valid loop nest."""

    def __init__(self, rng, strict="tvm", largest=14, core=None):
        self.core = Config.from_text(core or str(rng.choice(["1x16", "4x8"])))
        while True:
            n, c, k, h, w = (int(rng.integers(1, most)) for most in (4, 50, 50, largest + 1, largest + 1))
            r, s, sh, sw = (int(rng.integers(1, most)) for most in (5, 5, 4, 4))
            ph, pw = (int(v) for v in rng.integers(0, 4, 2))
            try:
                self.conv = Conv.of(self.core, n=n, c=c, h=h, w=w, k=k, r=r, s=s, stride=(sh, sw), padding=(ph, pw))
            except ConfigError:
                continue
            valid = [q for q in all_knobs(self.conv) if why_invalid(self.conv, q, self.core, strict) is None]
            if valid:
                break
        self.knobs, self.stride, self.padding = valid[rng.integers(len(valid))], (sh, sw), (ph, pw)
        self.x = rng.integers(-128, 128, (n, c, h, w)).astype(np.int8)
        self.w = rng.integers(-128, 128, (k, c, r, s)).astype(np.int8)
        self.shape = (n, k, self.conv.oh, self.conv.ow)

    @property
    def expected(self):
        return reference(self.x, self.w, self.stride, self.padding)


@pytest.fixture
def case():
    return Case
