"""The command line in this process: fast, and its two streams apart."""

import json
from dataclasses import dataclass

import pytest

from netfit.cli import main
from netfit.errors import TargetUnavailable

NET = '''
import torch.nn.functional as F
from torch import nn

print("said by the user's file")


class Net(nn.Module):
    """Functional residual network; the odd number of classes is its own."""

    def __init__(self, num_classes=7):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, num_classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.inner(x)) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def raises():
    raise RuntimeError("two\\nlines")
'''


@dataclass(frozen=True)
class Done:
    """What one call left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The one line that names the mistake; everything else said is the user's or the progress."""
        lines = [line for line in self.err.splitlines() if line.startswith("netfit: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("netfit: ")


@pytest.fixture
def netfit(capsys):
    def call(*words):
        status = main([str(word) for word in words])
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "theirs" / "net.py"
    path.parent.mkdir()
    path.write_text(NET)
    return f"{path}:Net"


@pytest.fixture
def policy(tmp_path):
    def write(text):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def not_installed(monkeypatch):
    def parse(text):
        raise TargetUnavailable(f"target {text!r}: {text.partition(':')[0]} is not installed yet")

    monkeypatch.setattr("netfit.targets.parse", parse)
