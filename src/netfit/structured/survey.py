"""Which layers a structure would make faster on this machine, at which error, and where dense should stay."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.surgery import Policy, apply
from netfit.targets import Timing, measure

from ._chain import KSChain
from ._conv import MonarchConv2d
from ._linear import ButterflyLinear, KSLinear, LowRankLinear, MonarchLinear
from ._pixelfly import PixelflyLinear
from ._project import low_rank_error, relative_error
from ._techniques import Butterfly, LowRank, Monarch, Pixelfly, Structure

__all__ = ["RUNTIMES", "Candidate", "Layer", "chosen_policy", "compare_networks", "survey", "sweep_sizes"]

RUNTIMES = ("torch", "openvino", "onnxruntime")
_LINEAR = (Monarch(), Monarch(nblocks=4), Butterfly(), Pixelfly(), LowRank())
_CONV = (Monarch(), Monarch(nblocks=4), LowRank())


@dataclass(frozen=True)
class Candidate:
    """A structure tried at one layer.

    Attributes:
        technique: what a policy would say.
        params: values of its weight.
        rel_error: of the projection of the weight.
        low_rank_error: of the best low-rank matrix with as many values.
        speedup: time of the dense layer over its own.
        lo: lower end of the 95 % interval of the speed-up.
        hi: upper end.
        time_s: seconds of one call.
    """

    technique: Structure
    params: int
    rel_error: float
    low_rank_error: float
    speedup: float
    lo: float
    hi: float
    time_s: float


@dataclass(frozen=True)
class Layer:
    """One linear layer or convolution of a network.

    Attributes:
        name: site of the policy.
        kind: ``"linear"`` or ``"conv2d"``.
        input: shape of what it was measured with.
        params: values of its weight.
        time_s: seconds of one call of the dense layer.
        candidates: what was tried, smaller than dense each.
        choice: the one to take, or None: keep dense.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    params: int
    time_s: float
    candidates: tuple[Candidate, ...] = field(default_factory=tuple)
    choice: Candidate | None = None


def survey(
    model: nn.Module, example_input: Tensor, *, runtime: str = "torch", min_speedup: float = 1.1, budget_s: float = 1.0,
    threads: int = 1, seed: int = 0, show: Callable[[str], object] = lambda name: None,
) -> list[Layer]:  # fmt: skip
    """Try every structure at every linear layer and convolution, with the inputs the layer gets in the network.

    The choice is the candidate of the least projection error among those surely faster by `min_speedup`; a layer
    where none is keeps its dense weight.

    Args:
        model: the network, untouched.
        example_input: a batch; its size is part of the question.
        runtime: ``"torch"`` (eager), ``"openvino"`` or ``"onnxruntime"``: where the layers are timed.
        min_speedup: times faster than dense that a candidate must be, by the lower end of its interval.
        budget_s: seconds of the measurement of one layer.
        threads: threads of a layer.
        seed: of the order of the measurement.
        show: called with the name of each layer before it is measured.

    Raises:
        ConfigError: the runtime is unknown, a number makes no sense, or the network has no such layer.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"no runtime {runtime!r}; {did_you_mean(runtime, RUNTIMES)}")
    if not min_speedup > 0:
        raise ConfigError(f"min_speedup={min_speedup} must be above 0")
    layers = []
    for name, (module, x) in _inputs(model, example_input).items():
        show(name)
        found, modules = _candidates(module)
        with _threads(threads), torch.no_grad():
            dense, timed = _timings(module, modules, x, runtime, budget_s, threads, seed)
        weight = module.weight.detach().flatten(1)
        tried = tuple(_candidate(t, m, weight, s) for t, m, s in zip(found, modules, timed, strict=True))
        kind = "linear" if isinstance(module, nn.Linear) else "conv2d"
        fast = [c for c in tried if c.lo >= min_speedup]
        choice = min(fast, key=lambda c: c.rel_error) if fast else None
        layers.append(Layer(name, kind, tuple(x.shape), weight.numel(), dense.seconds, tried, choice))
    return layers


def chosen_policy(layers: Sequence[Layer]) -> Policy:
    """The choices of a survey as a policy; empty where dense is to stay everywhere."""
    return Policy({layer.name: layer.choice.technique for layer in layers if layer.choice})


def compare_networks(
    model: nn.Module, policy: Policy, example_input: Tensor, *, runtime: str = "torch", budget_s: float = 2.0,
    threads: int = 1, seed: int = 0,
) -> Timing:  # fmt: skip
    """Time of the whole network with a policy over its time without; arguments as of `survey`."""
    new = apply(model, policy, example_input).eval()
    with _threads(threads), torch.no_grad():
        return _timings(model.eval(), [new], example_input, runtime, budget_s, threads, seed)[1][0]


def sweep_sizes(
    sizes: Sequence[int], batch: int = 128, *, train: bool = False, budget_s: float = 1.0, threads: int = 1,
    seed: int = 0, show: Callable[[str], object] = lambda name: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Speed-ups of square layers over `nn.Linear`, size by size: where the crossover of this machine lies.

    Args:
        sizes: inputs and outputs.
        batch: samples.
        train: time forward and backward pass instead of inference.
        budget_s: seconds of the measurement of one size.
        threads: threads of a layer.
        seed: of the values and of the order of the measurement.
        show: called with each size before it is measured.

    Returns:
        One row per size: its seconds dense, and the speed-up of each structure.
    """
    rows = []
    for n in sizes:
        show(str(n))
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, n, generator=draw)
        layers: dict[str, nn.Module] = {"dense": nn.Linear(n, n), **_square(n, draw)}
        step: Callable[[nn.Module, Tensor], object] = _step if train else lambda layer, x: layer(x)
        calls = {name: _call(step, layer, x.requires_grad_() if train else x) for name, layer in layers.items()}
        with _threads(threads), torch.set_grad_enabled(train):
            found = measure(calls, yardstick="dense", budget_s=budget_s, seed=seed, threads=threads)
        row: dict[str, Any] = {"n": n, "dense_s": found.timings["dense"].seconds}
        rows.append(row | {name: 1 / t.ratio for name, t in found.timings.items() if name != "dense"})
    return rows


def _square(n: int, draw: torch.Generator) -> dict[str, KSLinear | PixelflyLinear]:
    """Ways of running are fixed: what `auto` would do is what a sweep shall find out."""
    layers: dict[str, KSLinear | PixelflyLinear] = {
        "butterfly": ButterflyLinear(n, n, execute="fused", generator=draw),
        "monarch": MonarchLinear(n, n, execute="fused", generator=draw),
        "low_rank": LowRankLinear(n, n, KSChain.monarch(n, n).n_params // (2 * n), execute="fused", generator=draw),
    }
    pixelfly = PixelflyLinear(n, n, generator=draw)
    return layers | ({"pixelfly": pixelfly} if pixelfly.weight_params < n * n else {})


def _step(layer: nn.Module, x: Tensor) -> None:
    y = layer(x)
    torch.autograd.grad(y, [x, *layer.parameters()], torch.ones_like(y))


def _call(step: Callable[[nn.Module, Tensor], object], layer: nn.Module, x: Tensor) -> Callable[[], object]:
    return lambda: step(layer, x)


def _inputs(model: nn.Module, example_input: Tensor) -> dict[str, tuple[nn.Linear | nn.Conv2d, Tensor]]:
    """Layers with a weight of their own and what they get; of repeated calls, the first."""
    seen: dict[str, tuple[nn.Linear | nn.Conv2d, Tensor]] = {}
    hooks = []
    for name, module in model.named_modules():
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1):

            def keep(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                seen.setdefault(name, (module, args[0].detach()))  # type: ignore[arg-type]

            hooks.append(module.register_forward_pre_hook(keep))
    try:
        with torch.no_grad():
            model.eval()(example_input)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ConfigError(f"{type(model).__name__} has no linear layer and no convolution without groups")
    return seen


def _candidates(module: nn.Linear | nn.Conv2d) -> tuple[list[Structure], list[nn.Module]]:
    """Techniques that this layer can take and that make its weight smaller, with the layers they make."""
    found: dict[Structure, nn.Module] = {}
    for technique in _LINEAR if isinstance(module, nn.Linear) else _CONV:
        try:
            new = technique.layer(module).eval()
        except (ConfigError, TypeError):
            continue
        if _params(new) < module.weight.numel():
            found[technique] = new
    return list(found), list(found.values())


def _params(new: nn.Module) -> int:
    return sum(p.numel() for name, p in new.named_parameters() if not name.endswith("bias"))


def _candidate(technique: Structure, new: nn.Module, weight: Tensor, timing: Timing) -> Candidate:
    with torch.no_grad():
        if isinstance(new, nn.Sequential):
            thin, wide = (p.detach().flatten(1) for name, p in new.named_parameters() if name.endswith("weight"))
            near = wide @ thin
        else:
            assert isinstance(new, KSLinear | PixelflyLinear | MonarchConv2d)
            near = new.to_dense().flatten(1)
    size = _params(new)
    error, low = relative_error(weight, near), low_rank_error(weight, size)
    return Candidate(technique, size, error, low, 1 / timing.ratio, 1 / timing.hi, 1 / timing.lo, timing.seconds)


def _timings(
    dense: nn.Module, others: Sequence[nn.Module], x: Tensor, runtime: str, budget_s: float, threads: int, seed: int
) -> tuple[Timing, list[Timing]]:
    modules = {"dense": dense, **{str(i): other for i, other in enumerate(others)}}
    with tempfile.TemporaryDirectory() as folder:
        calls = {name: _runner(m, x, runtime, threads, Path(folder) / f"{name}.onnx") for name, m in modules.items()}
        timings: Mapping[str, Timing] = measure(
            calls, yardstick="dense", budget_s=budget_s, seed=seed, threads=threads
        ).timings
    return timings["dense"], [timings[str(i)] for i in range(len(others))]


def _runner(module: nn.Module, x: Tensor, runtime: str, threads: int, path: Path) -> Callable[[], object]:
    if runtime == "torch":
        return lambda: module(x)
    from netfit.deploy import export, open_session

    session = open_session(export(nn.Sequential(module), [x], path, runtime=runtime).path, runtime, threads)
    values = [x.numpy()]
    return lambda: session.run(values)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
