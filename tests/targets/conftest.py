"""A tiny network as files, exported once."""

from pathlib import Path

import pytest
import torch
from torch import nn


class Tiny(nn.Module):
    """A convolution, a residual addition and a classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.again = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        return self.fc((x + self.again(x)).mean((2, 3)))


@pytest.fixture
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    from netfit.deploy import export

    folder, x = tmp_path_factory.mktemp("networks"), torch.randn(1, 3, 16, 16)
    return {f"w{w}": export(Tiny(w).eval(), (x,), folder / f"w{w}.onnx").path for w in (8, 16)}
