"""An exported graph as a list of steps over Gaussians."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from netfit.bayes._gaussian import Gaussian
from netfit.errors import UnsupportedLayerError, did_you_mean

from ._elementwise import quadrature
from ._registry import Rule, rule_of

__all__ = ["Fallback", "Program", "Ref", "Step", "read_program"]

Fallback = Literal["quadrature", "mc"]
_DRAWS = 256  # of the Monte Carlo fallback


@dataclass(frozen=True)
class Ref:
    """The result of an earlier step, or an input or weight, by its name in the graph."""

    name: str


@dataclass
class Step:
    """One operator.

    Attributes:
        name: of its result in the graph.
        site: its call site in the network.
        target: the operator.
        args, kwargs: with `Ref` in the place of tensors.
        rule: its moment rule; None for an operator that random tensors never reach.
        settings: keyword arguments of the rule that calibration may change, unless `fixed`.
        fixed: the caller chose the settings.
    """

    name: str
    site: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rule: Rule | None
    settings: dict[str, Any] = field(default_factory=dict)
    fixed: bool = False

    @property
    def kind(self) -> str:
        """Name of the operator without its overload, such as ``"conv2d"``."""
        packet = getattr(self.target, "overloadpacket", self.target)
        return str(getattr(packet, "__name__", packet)).split(".")[-1]

    def inputs(self) -> list[str]:
        """Names of everything it reads."""
        found: list[str] = []
        replaced((self.args, self.kwargs), lambda ref: found.append(ref.name))
        return found


@dataclass
class Program:
    """Steps in order, the names of what goes in and the name of what comes out."""

    steps: list[Step]
    inputs: list[str]
    weights: dict[str, str]  # name in the graph -> name in the state of the network
    output: str

    def run(
        self, values: Mapping[str, Any], *, watch: Callable[[Step, Any], None] | None = None, moments: bool = True
    ) -> dict[str, Any]:
        """Every value of the graph, by name.

        Args:
            values: inputs and weights: Gaussians or tensors.
            watch: sees every step with its result.
            moments: False runs the operators themselves, on tensors.
        """
        env = dict(values)
        for step in self.steps:
            args, kwargs = replaced((step.args, step.kwargs), lambda ref: env[ref.name])
            result = apply(step, args, kwargs) if moments else step.target(*args, **kwargs)
            env[step.name] = result
            if step.kind.endswith("_") and isinstance(step.args[0], Ref):
                env[step.args[0].name] = result  # later readers of the input see what was written into it
            if watch is not None:
                watch(step, result)
        return env


def apply(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a step does to Gaussians; plain operators do what they always do."""
    random = _gaussians((args, kwargs))
    if not random:
        return step.target(*args, **kwargs)
    if all(g.var is None for g in random):
        known = replaced((args, kwargs), lambda g: g.mean, Gaussian)
        result = step.target(*known[0], **known[1])
        return Gaussian(result) if isinstance(result, Tensor) else result
    if step.rule is None:
        raise unsupported(step)
    try:
        return step.rule(*args, **kwargs, **step.settings)
    except UnsupportedLayerError as e:
        raise UnsupportedLayerError(f"{step.site}: {e}") from e


def unsupported(step: Step) -> UnsupportedLayerError:
    """The error for an operator nobody gave a rule, naming it, its place and the ways out."""
    name = str(step.target).removesuffix(".default")
    return UnsupportedLayerError(
        f"no moment rule for {name} at {step.site!r}; use register_moment_rule, or fallback='quadrature' or 'mc'"
    )


def replaced(tree: Any, change: Callable[[Any], Any], kind: type = Ref) -> Any:
    """A copy of nested lists, tuples and dicts with every `kind` in it changed."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, Gaussian):
        return tree
    if isinstance(tree, list | tuple):
        parts = [replaced(x, change, kind) for x in tree]
        return parts if isinstance(tree, list) else tuple(parts)
    if isinstance(tree, dict):
        return {k: replaced(v, change, kind) for k, v in tree.items()}
    return tree


def _gaussians(tree: Any) -> list[Gaussian]:
    found: list[Gaussian] = []
    replaced(tree, found.append, Gaussian)
    return found


def read_program(program: torch.export.ExportedProgram, fallback: Fallback | None) -> Program:
    """Steps of an exported network, each with its moment rule where it has one."""
    if fallback not in (None, "quadrature", "mc"):
        raise UnsupportedLayerError(f"fallback={fallback!r}; {did_you_mean(str(fallback), ['quadrature', 'mc'])}")
    signature = program.graph_signature
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    steps: list[Step] = []
    inputs: list[str] = []
    kernels: dict[str, tuple[int, ...]] = {}
    output = ""
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name not in stored:
                inputs.append(node.name)
            elif isinstance(node.meta.get("val"), Tensor):
                kernels[node.name] = tuple(node.meta["val"].shape[2:])
        elif node.op == "call_function":
            if not str(node.target).startswith(("aten._assert", "aten.sym_constrain")):
                steps.append(_step(node, fallback))
        elif node.op == "output":
            results = [n.name for n in node.args[0] if isinstance(n, fx.Node) and n.name in signature.user_outputs]
            if len(results) != 1:
                raise UnsupportedLayerError(f"the network returns {len(results)} tensors; one of logits is needed")
            output = results[0]
    return Program(_commuted(steps, output, kernels), inputs, stored, output)


def _step(node: fx.Node, fallback: Fallback | None) -> Step:
    site = (node.meta.get("custom") or {}).get("netfit_site")
    name, call = (site[0], site[1]) if site else (node.name, 0)
    args, kwargs = replaced((tuple(node.args), dict(node.kwargs)), lambda n: Ref(n.name), fx.Node)
    known = rule_of(node.target)
    step = Step(node.name, f"{name}#{call}" if call else name, node.target, args, kwargs, None)
    if known is not None:
        step.rule, step.settings = known
    elif fallback is not None:
        step.rule = _fallback(step, fallback)
    return step


def _fallback(step: Step, how: Fallback) -> Rule:
    """A rule for any operator: quadrature where it is element-wise, else (or when asked for) sampling."""
    pointwise = torch.Tag.pointwise in getattr(step.target, "tags", ())

    def rule(*args: Any, **kwargs: Any) -> Gaussian:
        random = _gaussians((args, kwargs))
        if how == "quadrature":
            if not pointwise or len({id(g) for g in random}) != 1:
                raise UnsupportedLayerError(f"{step.target} is not element-wise in one tensor: use fallback='mc'")

            def at(points: Tensor) -> Tensor:
                changed = replaced((args, kwargs), lambda _: points, Gaussian)
                return step.target(*changed[0], **changed[1])

            return quadrature(at, random[0])
        return _sampled(step, args, kwargs)

    return rule


def _sampled(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Gaussian:
    """Moments over draws with one fixed seed: the same input gives the same result."""
    generator = torch.Generator().manual_seed(0)

    def draw(g: Gaussian) -> Tensor:
        if g.var is None:
            return g.mean
        noise = torch.randn(g.mean.shape, generator=generator, dtype=g.mean.dtype)
        return g.mean + g.var.clamp_min(1e-20).sqrt() * noise

    results = []
    for _ in range(_DRAWS):
        drawn = replaced((args, kwargs), draw, Gaussian)
        results.append(step.target(*drawn[0], **drawn[1]))
    stacked = torch.stack(results)
    return Gaussian(stacked.mean(0), stacked.var(0))


def _commuted(steps: list[Step], output: str, kernels: Mapping[str, tuple[int, ...]]) -> list[Step]:
    """Average pooling moved in front of a 1 x 1 convolution that feeds only it.

    It is exact, and that inputs are independent is a better assumption than that outputs of one weight are.
    """
    readers: dict[str, int] = {output: 1}
    for step in steps:
        for name in step.inputs():
            readers[name] = readers.get(name, 0) + 1
    made = {step.name: step for step in steps}
    for pool in steps:
        conv = made.get(pool.inputs()[0]) if pool.inputs() else None
        if not _is_plain_average(pool) or conv is None or not _looks_at_one_pixel(conv, kernels):
            continue
        if readers[conv.name] == 1:
            pooled = replace(pool, name=conv.name, args=(conv.args[0], *pool.args[1:]))
            mixed = replace(conv, name=pool.name, args=(Ref(conv.name), *conv.args[1:]))
            made[pooled.name], made[mixed.name] = pooled, mixed
    return [made[step.name] for step in steps]


def _is_plain_average(step: Step) -> bool:
    """Averages over windows without a border."""
    return step.kind == "adaptive_avg_pool2d" or (step.kind == "avg_pool2d" and len(step.args) <= 3 and not step.kwargs)


def _looks_at_one_pixel(step: Step, kernels: Mapping[str, tuple[int, ...]]) -> bool:
    """A 1 x 1 convolution without stride or border."""
    if step.kind != "conv2d" or step.kwargs or kernels.get(step.args[1].name) != (1, 1):
        return False
    return all(list(have) == want for have, want in zip(step.args[3:5], ([1, 1], [0, 0]), strict=False))
