"""A model from its name: built in, or a user's factory; both come out as plain modules."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from netfit.errors import ConfigError, did_you_mean

from ._keyword import DSCNN
from ._resmlp import ResMLP
from ._resnet import resnet18, resnet20
from ._small import MLP, DigitsCNN, LeNet5
from ._user import build_user
from ._vgg import VGG8


@dataclass(frozen=True)
class Recipe:
    """Training arguments that suit a model; they fit the keywords of ``netfit.train.fit``.

    Args:
        epochs: passes over the training samples.
        lr: highest learning rate of the one-cycle schedule.
        batch_size: samples a step.
        weight_decay: L2 penalty.
        augment: name of an augmentation, or None.
    """

    epochs: int
    lr: float
    batch_size: int
    weight_decay: float
    augment: str | None


@dataclass(frozen=True)
class Builtin:
    """A factory with what it is built for when the caller does not say.

    ``smallest`` is the least height and width that survive its strides; 0 says that any input shape will do.
    """

    factory: Callable[[int, tuple[int, ...]], nn.Module]
    num_classes: int
    in_shape: tuple[int, ...]
    smallest: int
    recipe: Recipe


CIFAR = (3, 32, 32)
MNIST = (1, 28, 28)
BUILTINS = {
    "digits-cnn": Builtin(DigitsCNN, 10, (1, 8, 8), 2, Recipe(15, 0.1, 32, 5e-4, None)),
    "ds-cnn": Builtin(DSCNN, 6, (1, 40, 148), 2, Recipe(30, 0.1, 64, 5e-4, None)),
    "lenet5": Builtin(LeNet5, 10, MNIST, 12, Recipe(10, 0.05, 128, 5e-4, None)),
    "mlp": Builtin(MLP, 10, MNIST, 0, Recipe(10, 0.05, 128, 1e-4, None)),
    "resmlp": Builtin(ResMLP, 10, CIFAR, 4, Recipe(30, 0.05, 128, 5e-4, "crop-flip")),
    "resnet18": Builtin(resnet18, 10, CIFAR, 1, Recipe(14, 0.2, 128, 5e-4, "crop-flip")),
    "resnet20": Builtin(resnet20, 10, CIFAR, 1, Recipe(14, 0.2, 128, 5e-4, "crop-flip")),
    "vgg8": Builtin(VGG8, 10, CIFAR, 8, Recipe(14, 0.1, 128, 5e-4, "crop-flip")),
}
USER_RECIPE = Recipe(20, 0.1, 128, 5e-4, None)


def names() -> list[str]:
    """Built-in models, sorted."""
    return sorted(BUILTINS)


def recipe(spec: str) -> Recipe:
    """Training arguments for a model; a user's factory gets moderate ones.

    Raises:
        ConfigError: unknown name.
    """
    return USER_RECIPE if ":" in spec else _builtin(spec).recipe


def default_in_shape(spec: str) -> tuple[int, ...] | None:
    """Shape of one input, without the batch, that a model is made for; None for a user's factory.

    Raises:
        ConfigError: unknown name.

    >>> default_in_shape("lenet5")
    (1, 28, 28)
    """
    return None if ":" in spec else _builtin(spec).in_shape


def build(spec: str, *, num_classes: int | None = None, in_shape: tuple[int, ...] | None = None) -> nn.Module:
    """Build a model with fresh weights, drawn from torch's global generator.

    Args:
        spec: a built-in name, ``package.module:factory`` or ``file.py:factory``. Naming a factory runs the code
            of its file. It is called without arguments, or with ``num_classes`` and ``in_shape`` where its
            signature has them and they are given here.
        num_classes: outputs; a built-in model's customary number when None.
        in_shape: one input without the batch, (C, H, W) for images; a built-in model's customary one when None.

    Raises:
        ConfigError: unknown name, a shape the model cannot take, or a factory that is missing, raises or does not
            return a module.

    >>> sum(p.numel() for p in build("resnet20").parameters())
    272474
    """
    if num_classes is not None and num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, not {num_classes}")
    if ":" in spec:
        return build_user(spec, num_classes, in_shape)
    entry = _builtin(spec)
    shape = tuple(in_shape or entry.in_shape)
    if entry.smallest and (len(shape) != 3 or min(shape[1:]) < entry.smallest):
        least = f"{entry.smallest}x{entry.smallest}"
        raise ConfigError(f"{spec} takes images (C, H, W) of at least {least} pixels, not inputs of shape {shape}")
    if min(shape) < 1:
        raise ConfigError(f"an input shape has sizes of at least 1, not {shape}")
    return entry.factory(num_classes or entry.num_classes, shape)


def _builtin(name: str) -> Builtin:
    if name not in BUILTINS:
        hint = "name the factory too: file.py:factory" if name.endswith(".py") else did_you_mean(name, BUILTINS)
        raise ConfigError(f"unknown model {name!r}; {hint}")
    return BUILTINS[name]
