"""The machine netfit runs on, measured through the runtimes of `netfit.deploy`."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit import env
from netfit.deploy import Session, export, open_session
from netfit.errors import ConfigError, MissingExtraError, UnsupportedLayerError, did_you_mean
from netfit.workload import Op

from ._base import DeviceSpec, Target
from ._bits import bits_that_pay, measurable, shape_of
from ._cache import Cache, file_digest
from ._measure import PROTOCOL, Measurement, measure
from ._memory import PeakMemory, peak_memory
from ._profile import checked_model, eager_profile, spread, torch_threads, with_kinds
from ._table import CostTable

FILE_RUNTIMES = ("openvino", "onnxruntime")
RUNTIMES = (*FILE_RUNTIMES, "torch", "fastest")
Network = str | Path | Session
Example = NDArray[Any] | Sequence[NDArray[Any]] | None

_INT8 = frozenset({"conv1d", "conv2d", "conv3d", "linear", "add"})  # what the runtimes have int8 kernels for
_BF16 = frozenset({"conv1d", "conv2d", "conv3d", "linear", "matmul"})


class HostCPU(Target):
    """This machine's processor, one inference at a time.

    Times are CPU time at the 15th percentile, in turns with a yardstick (see :func:`measure`); results are kept
    under the digest of the exported file, the runtime and its version, the processor and the thread count.

    Args:
        runtime: ``"openvino"``, ``"onnxruntime"``, ``"torch"`` (eager, for comparison only) or ``"fastest"``:
            whichever of the first two runs the network, or the yardstick of :meth:`latency`, in less time.
        threads: threads of one inference. More than one is timed with the wall clock, which a busy machine blurs.
        budget_s: wall seconds of one measurement.
        cache: folder of kept results; the user's cache of netfit by default.

    Raises:
        ConfigError: unknown runtime, or fewer than one thread.
    """

    kind = "measured"

    def __init__(
        self, runtime: str = "openvino", threads: int = 1, *, budget_s: float = 3.0, cache: str | Path | None = None
    ) -> None:
        if runtime not in RUNTIMES:
            raise ConfigError(f"no runtime {runtime!r} on the host; {did_you_mean(runtime, RUNTIMES)}")
        if threads < 1:
            raise ConfigError(f"threads={threads}: a network needs at least one")
        self.runtime, self.threads, self.budget_s = runtime, threads, budget_s
        self._folder = None if cache is None else Path(cache)
        self._paying: dict[str, tuple[str, ...]] = {}

    @property
    def spec(self) -> DeviceSpec:
        """Name and main memory; the peaks of a host are not published, so none are claimed."""
        import psutil

        return DeviceSpec(env.fingerprint()["cpu"], memory_bytes=int(psutil.virtual_memory().total))

    @property
    def channel_step(self) -> int:
        """Both runtimes block channels by the vector width: 16 floats with AVX-512, 8 without."""
        return 16 if "avx512f" in self.fingerprint()["cpu_flags"] else 8

    def fingerprint(self) -> dict[str, Any]:
        """Processor, runtime with version, and threads: what a kept measurement depends on."""
        names = FILE_RUNTIMES if self.runtime == "fastest" else (self.runtime,)
        facts = env.fingerprint()
        return {
            "target": "host",
            "runtime": self.runtime,
            "versions": {name: facts["packages"][name] for name in names},
            "cpu": facts["cpu"],
            "cpu_flags": facts["cpu_flags"],
            "threads": self.threads,
        }

    def precisions(self, kind: str) -> tuple[str, ...]:
        """Precisions the runtime has kernels for; bf16 only where the processor multiplies in it."""
        if self.runtime == "torch":
            return ("fp32",)
        bf16 = {"avx512_bf16", "amx_bf16"} & set(self.fingerprint()["cpu_flags"])
        out = ["fp32"]
        if self.runtime != "onnxruntime" and bf16 and kind in _BF16:
            out.append("bf16")
        return (*out, "int8") if kind in _INT8 else tuple(out)

    def offered(self, op: Op) -> tuple[str, ...]:
        """Those of :meth:`precisions`, and the 1-bit ones in which OpenVINO runs the layer faster than in int8.

        That is measured once for each shape on a machine and kept.
        """
        known = self.precisions(op.kind)
        if self.runtime not in ("openvino", "fastest") or not measurable(op):
            return known
        shape = shape_of(op)
        if str(shape) not in self._paying:
            cache = self._cache("openvino")
            paying: tuple[str, ...] | None = cache.get(tuple, "bits", shape)
            if paying is None:
                quick = HostCPU(self.runtime, self.threads, budget_s=self.budget_s / 3)
                paying, noisy = bits_that_pay(op, lambda sessions: quick.latency(sessions, "int8"), self.threads)
                if not noisy:
                    cache.put(paying, "bits", shape)
            self._paying[str(shape)] = paying
        return (*known, *self._paying[str(shape)])

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Any = None) -> CostTable:
        """Measured seconds of one inference, distributed over layers by the runtime's own profile.

        A row is one kernel the runtime executes, named after the call site it computes: a convolution with the
        batch norm, ReLU and addition fused into it is one row. The sum of the rows is the time of the whole
        network, measured without the profiler.

        Raises:
            ConfigError: given a workload, which cannot be run.
            UnsupportedLayerError: the model has no exported form.
        """
        model = checked_model(workload_or_model, example_inputs, policy)
        if self.runtime == "torch":
            with torch_threads(self.threads):
                return self._spread("torch", *eager_profile(model, example_inputs))
        with tempfile.TemporaryDirectory() as folder:
            path = export(model, example_inputs, Path(folder) / "model.onnx").path
            table = self.file_cost(path, [t.detach().cpu().numpy() for t in example_inputs])
        return with_kinds(table, model, example_inputs)

    def file_cost(self, path: str | Path, x: Example = None) -> CostTable:
        """What :meth:`cost` says of an exported file; kinds are the runtime's own words.

        Args:
            path: ``.onnx``, or ``.xml`` for OpenVINO.
            x: input of the network; noise of batch one by default.
        """
        path = Path(path)
        runtime = self._runtime_for(path)
        cache, key = self._cache(runtime), ("cost", file_digest(path), _shapes(x))
        table = cache.get(CostTable.from_json, *key)
        if table is None:
            profiled = open_session(path, runtime, self.threads, profile=True)
            kinds = {layer.name: layer.kind.lower() for layer in profiled.layers()}
            layers = [(name, kinds.get(name, "other"), seconds) for name, seconds in profiled.profile(x)]
            table = self._spread(runtime, open_session(path, runtime, self.threads).warm(x), layers)
            if not table.source.endswith("noisy"):
                cache.put(table.to_json(), *key)
        return table

    def _spread(self, runtime: str, call: Callable[[], Any], layers: list[tuple[str, str, float]]) -> CostTable:
        found = measure({"net": call}, yardstick="net", budget_s=self.budget_s, threads=self.threads)
        version = env.fingerprint()["packages"][runtime]
        return spread(found.timings["net"], layers, f"measured: {runtime} {version}, {self.threads} thread(s)")

    def latency(self, networks: Mapping[str, Network], yardstick: str, x: Example = None) -> Measurement:
        """Time exported networks in turns with one of them.

        Args:
            networks: files or open sessions, by name. Files are opened in this target's runtime, and their
                results are kept; sessions are timed as they are.
            yardstick: name of the network every ratio refers to, usually the uncompressed one.
            x: input of every network; noise of batch one by default. Values do not change the time.

        Raises:
            ConfigError: no such yardstick, or a file that cannot be read.
        """
        if yardstick not in networks:
            raise ConfigError(f"no network {yardstick!r} to serve as yardstick; {did_you_mean(yardstick, networks)}")
        base = networks[yardstick]
        runtime = base.runtime if isinstance(base, Session) else self._runtime_for(Path(base))
        cache = self._cache(runtime)
        keys = {} if isinstance(base, Session) else _keys(networks, base, x)
        kept = {name: m for name, key in keys.items() if (m := cache.get(Measurement.from_json, *key))}
        todo = [name for name in networks if name not in kept]
        if todo:
            names = dict.fromkeys([yardstick, *todo])
            calls = {name: self._call(networks[name], runtime, x) for name in names}
            found = measure(calls, yardstick=yardstick, budget_s=self.budget_s, threads=self.threads)
        else:
            found = replace(next(iter(kept.values())), yardstick=yardstick, timings={})
        for name in todo:
            if name in keys and not found.timings[name].noisy:
                pair = {"yardstick": found.timings[yardstick], "candidate": found.timings[name]}
                cache.put(replace(found, yardstick="yardstick", timings=pair).to_json(), *keys[name])
        old = {name: m.timings["candidate"] for name, m in kept.items()}
        return replace(found, timings={name: found.timings.get(name) or old[name] for name in networks})

    def peak_memory(self, path: str | Path, x: Example = None) -> PeakMemory:
        """Peak resident memory of loading and running an exported network, in a fresh process.

        Args:
            path: ``.onnx``, or ``.xml`` for OpenVINO.
            x: input of the inference; noise of batch one by default.

        Raises:
            TargetError: the process failed, was killed, or took more than ten minutes.
            TargetUnavailable: not Linux.
        """
        path = Path(path)
        runtime = self._runtime_for(path)
        cache, key = self._cache(runtime), ("memory", file_digest(path), _shapes(x))
        found = cache.get(PeakMemory.from_json, *key)
        if found is None:
            found = peak_memory(path, runtime, self.threads, x)
            cache.put(asdict(found), *key)
        return found

    def _call(self, network: Network, runtime: str, x: Example) -> Callable[[], Any]:
        session = network if isinstance(network, Session) else open_session(network, runtime, self.threads)
        return session.warm(x)

    def _cache(self, runtime: str) -> Cache:
        facts = HostCPU(runtime, self.threads).fingerprint()
        return Cache(self._folder, {**facts, "protocol": PROTOCOL})

    def _runtime_for(self, path: Path) -> str:
        """The runtime that runs a file, found by measuring when the fastest was asked for."""
        if self.runtime == "torch":
            raise ConfigError(f"runtime torch runs models and not files such as {path}; choose openvino or onnxruntime")
        if self.runtime != "fastest":
            return self.runtime
        cache, key = self._cache("fastest"), ("fastest", file_digest(path))
        found = cache.get(str, *key) or fastest_runtime(path, self.threads, budget_s=self.budget_s)
        cache.put(found, *key)
        return found


def fastest_runtime(path: str | Path, threads: int = 1, *, budget_s: float = 3.0) -> str:
    """Name of the installed runtime that runs a file in the least time.

    Args:
        path: exported network.
        threads: threads of one inference.
        budget_s: wall seconds to spend.

    Raises:
        MissingExtraError: no runtime is installed.
        ConfigError: the file cannot be read.
    """
    calls: dict[str, Callable[[], Any]] = {}
    missing: MissingExtraError | None = None
    for name in FILE_RUNTIMES if Path(path).suffix == ".onnx" else ("openvino",):
        try:
            calls[name] = open_session(path, name, threads).warm()
        except MissingExtraError as e:
            missing = e
        except UnsupportedLayerError:  # 1-bit layers run in OpenVINO only
            continue
    if not calls:
        raise missing or ConfigError(f"no runtime reads {path}")
    if len(calls) == 1:
        return next(iter(calls))
    found = measure(calls, yardstick=next(iter(calls)), budget_s=budget_s, threads=threads)
    return min(found.timings, key=lambda name: found.timings[name].ratio)


def from_text(argument: str) -> HostCPU:
    """Factory of ``"host"`` and ``"host:<runtime>"``."""
    return HostCPU(argument or "openvino")


def _keys(networks: Mapping[str, Network], base: str | Path, x: Example) -> dict[str, tuple[Any, ...]]:
    """What the kept ratio of each file depends on, besides the machine."""
    yardstick, shapes = file_digest(Path(base)), _shapes(x)
    return {
        name: ("latency", yardstick, file_digest(Path(net)), shapes)
        for name, net in networks.items()
        if not isinstance(net, Session)
    }


def _shapes(x: Example) -> list[tuple[int, ...]]:
    arrays = [] if x is None else [x] if isinstance(x, np.ndarray) else list(x)
    return [a.shape for a in arrays]
