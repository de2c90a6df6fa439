"""From what a user gives to `cost` to a workload and the precision its layers ask for, for targets that compute."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantization, Quantize, Site, apply, plain
from netfit.workload import Workload, trace

__all__ = ["Bits", "Key", "traced"]

Key = tuple[str, int]
Bits = Mapping[Key, tuple[int, int]]


def traced(model: Any, example_inputs: tuple[Any, ...], policy: Policy | None, target: str) -> tuple[Workload, Bits]:
    """The workload behind what a user gives to `cost`, and the precision its layers ask for.

    Args:
        model: what `cost` was given first.
        example_inputs: what followed it.
        policy: applied to a copy of the model; on a workload it may only quantize.
        target: how the message of an error names the target.

    Returns:
        The workload, and (weight bits, activation bits) by site of the layers that ask for a precision.

    Raises:
        ConfigError: no model and no workload, or a policy that changes shapes where there is only a workload.
    """
    if isinstance(model, Workload):
        return model, {} if policy is None else _resolved(model, policy)
    if not isinstance(model, nn.Module) or not example_inputs:
        raise ConfigError(
            f"{target} costs a workload, or a torch module with its example inputs, "
            f"not a {type(model).__name__} with {len(example_inputs)} inputs"
        )
    changed = model if policy is None else apply(model, policy, *example_inputs)
    state = Quantization.of(changed)
    workload = trace(plain(changed), *example_inputs)
    return workload, {} if state is None else _asked(state, workload)


def _asked(state: Quantization, workload: Workload) -> Bits:
    widths = state.widths()
    return {op.key: widths[op.name] for op in workload if op.name in widths and op.params}


def _resolved(workload: Workload, policy: Policy) -> Bits:
    places = [Site(op.name, op.call, op.kind, op.outputs[0].shape if op.outputs else ()) for op in workload]
    bits: dict[Key, tuple[int, int]] = {}
    for technique, chosen in policy.resolve(places).items():
        if technique is not Quantize:
            raise ConfigError(f"a workload cannot be changed by {technique.name!r}: give cost() the model instead")
        bits |= {site.key: (t.weight_bits, t.act_bits) for site, t in chosen.items() if isinstance(t, Quantize)}
    return {key: wide for key, wide in bits.items() if wide != (32, 32)}  # fp32 means: not asked for less
