"""Factories of the user: found, called with what they take, and every mistake in one line."""

import sys

import pytest
import torch

from netfit import models
from netfit.errors import ConfigError

CODE = """
import torch
from torch import nn
import helper_of_the_user

class Net(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.fc = nn.Linear(4, num_classes)
    def forward(self, x):
        return self.fc(x)

def plain(): return Net(3)
def by_name(*, num_classes=2, in_shape=(9,)):
    net = Net(num_classes); net.in_shape = in_shape; return net
def needs(width): return Net()
def breaks(): raise RuntimeError("two\\nlines")
def nothing(): return None
instance = Net()
number = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "helper_of_the_user.py").write_text("x = 1\n")
    path = tmp_path / "net.py"
    path.write_text(CODE)
    yield path
    sys.modules.pop("helper_of_the_user", None)


def classes(model):
    return model(torch.randn(1, 4)).shape[1]


def test_factories_get_what_their_signature_takes(file):
    assert classes(models.build(f"{file}:plain", num_classes=7)) == 3
    assert classes(models.build(f"{file}:Net", num_classes=7)) == 7
    assert classes(models.build(f"{file}:Net")) == 5
    model = models.build(f"{file}:by_name", num_classes=7, in_shape=(4,))
    assert classes(model) == 7 and model.in_shape == (4,)


def test_file_is_read_again_when_it_changes(file):
    models.build(f"{file}:plain")
    file.write_text(CODE.replace("Net(3)", "Net(11)"))
    assert classes(models.build(f"{file}:plain")) == 11


def test_two_files_of_one_name_do_not_meet(file, tmp_path):
    other = tmp_path / "other" / "net.py"
    other.parent.mkdir()
    other.write_text("from torch import nn\ndef plain(): return nn.Linear(4, 9)\n")
    assert classes(models.build(f"{other}:plain")) == 9
    assert classes(models.build(f"{file}:plain")) == 3


def test_module_in_the_working_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    path = list(sys.path)
    try:
        assert classes(models.build("net:plain")) == 3
    finally:
        sys.modules.pop("net", None)
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plane", r"has no 'plane'; did you mean 'plain'"),
        ("needs", r":needs raised TypeError: needs\(\) missing 1 required positional argument: 'width'"),
        ("breaks", r":breaks raised RuntimeError: two lines"),
        ("nothing", r":nothing returned a NoneType, not a torch\.nn\.Module"),
        ("instance", r"is a Net, not a function"),
        ("number", r"is a int, not a function"),
        ("", r"must be package\.module:factory"),
    ],
)
def test_mistakes_name_the_factory(file, name, message):
    with pytest.raises(ConfigError, match=message) as e:
        models.build(f"{file}:{name}")
    assert "\n" not in str(e.value)


def test_missing_file_and_module(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        models.build(f"{tmp_path}/absent.py:net")
    with pytest.raises(ConfigError, match="importing no_such_module_of_mine failed with ModuleNotFoundError"):
        models.build("no_such_module_of_mine:net")


def test_broken_file_is_one_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def net(:\n")
    with pytest.raises(ConfigError, match="SyntaxError") as e:
        models.build(f"{path}:net")
    assert "\n" not in str(e.value)
