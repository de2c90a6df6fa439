"""Fixtures of the whole suite: one thread for torch, and the data sets of $NETFIT_DATA or a skip."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from netfit.errors import DataNotFound

# Read when torch is first imported, so that a test that imports it late runs on one thread too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite started in the background by a shell inherits "ignore": no interrupt could be tested, here or in children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Wall clock is no property of the code: a shared machine must not fail an example for being slow.
settings.register_profile("netfit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("netfit")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep parallel workers from fighting over cores; tests of floor 0 and the command line load no torch."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@pytest.fixture
def data_or_skip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``netfit.data.load`` of what lies on disk; a test whose data set does not is skipped with the reason."""
    from netfit.data import load

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("tests do not download")

    def load_or_skip(name: str, split: str = "train") -> Any:
        try:
            return load(name, split)
        except DataNotFound as e:
            pytest.skip(str(e))

    monkeypatch.setattr("pooch.retrieve", offline)
    return load_or_skip
