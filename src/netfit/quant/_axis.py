"""One scale per tensor or one per slice along an axis: the two index helpers every format needs."""

from torch import Tensor

from netfit.errors import ConfigError


def other_dims(x: Tensor, axis: int | None) -> tuple[int, ...]:
    """The dimensions to reduce over so that one value per scale is left."""
    if axis is None:
        return tuple(range(x.ndim))
    if not -x.ndim <= axis < x.ndim:
        raise ConfigError(f"axis={axis} does not exist in a tensor of shape {tuple(x.shape)}: use 0..{x.ndim - 1}")
    return tuple(d for d in range(x.ndim) if d != axis % x.ndim)


def along(value: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """`value`, one per slice of `x` along `axis`, shaped to broadcast against `x`."""
    if axis is None:
        return value
    kept = [1] * x.ndim
    kept[axis] = -1
    return value.reshape(kept)
