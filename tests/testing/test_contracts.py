"""netfit's own techniques and targets keep the contracts, and the contracts find those that do not."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from netfit.compress import Prune
from netfit.surgery import CallHook, Quantize, Stage, Technique, install
from netfit.targets import CostTable, DeviceSpec, HostCPU, Target
from netfit.testing import TargetContract, TechniqueContract
from netfit.workload import Workload, trace


@dataclass(frozen=True)
class Damp(Technique):
    """A user's own swap: multiply weights, with a gain that trains."""

    factor: float = 0.5

    name, stage, mechanism, kinds = "test-damp", Stage.STRUCTURE, "swap", frozenset({"linear"})

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        for site, damp in chosen.items():
            linear = model.get_submodule(site.name)
            model.set_submodule(site.name, nn.Sequential(linear, Gain(damp.factor)))
        return model


class Gain(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor


@dataclass(frozen=True)
class Jitter(Technique):
    """A user's own hook: Gaussian noise on results."""

    std: float = 0.01

    name, stage, mechanism = "test-jitter", Stage.NOISE, "hook"

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        install(model, {site.key: Noise(t.std) for site, t in chosen.items()})
        return model


class Noise(CallHook):
    def __init__(self, std):
        super().__init__()
        self.std = std

    def after(self, result):
        return result + self.std * torch.randn_like(result)


@pytest.mark.parametrize(
    "technique",
    [Quantize(), Quantize(4, 8), Quantize(1, 8), Quantize(16, 16), Quantize(32, 32), Damp(), Jitter(0.1)],
    ids=repr,
)
class TestTechniques(TechniqueContract):
    pass


@pytest.mark.parametrize("technique", [Prune(0.5), Prune(keep=3), Prune(sparsity=0.0)], ids=repr)
class TestPrune(TechniqueContract):
    pattern = "kind:conv2d"  # the last layer's outputs are the network's own


class Counted(Target):
    """A user's own computed target: one nanosecond a MAC, and one an activation byte."""

    kind = "simulated"

    @property
    def spec(self):
        return DeviceSpec("abacus")

    def fingerprint(self):
        return {"target": "abacus"}

    def precisions(self, kind):
        return ("fp32",)

    def cost(self, workload_or_model, *example_inputs, policy=None):
        found = workload_or_model
        workload = found if isinstance(found, Workload) else trace(found, *example_inputs)
        seconds = np.array([1e-9 * (op.macs + op.act_bytes) for op in workload])
        return CostTable([op.name for op in workload], [op.kind for op in workload], seconds, source="counted")


class TestCounted(TargetContract):
    @pytest.fixture
    def target(self):
        return Counted()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folder of measurements: one network is measured once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "torch"])
class TestHost(TargetContract):
    @pytest.fixture
    def target(self, runtime, kept):
        pytest.importorskip(runtime)
        return HostCPU(runtime, budget_s=0.1, cache=kept)

    tables: ClassVar[dict[str, CostTable]] = {}

    def cost(self, target):
        """Exporting takes seconds: one table serves the checks that only read it."""
        if target.runtime not in self.tables:
            self.tables[target.runtime] = super().cost(target)
        return self.tables[target.runtime]


# What follows is broken on purpose; the word before the colon is the check that must find it.


def in_place(model):
    with torch.no_grad():
        model.head.weight.mul_(0.5)
    return model


class Broken(Technique):
    mechanism, stage, kinds = "swap", Stage.STRUCTURE, None


@dataclass(frozen=True)
class Cuts(Broken):
    name = "test-cuts"

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        return nn.Sequential(model, nn.Linear(5, 2))


@dataclass(frozen=True)
class Draws(Broken):
    name = "test-draws"

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        nn.init.normal_(model.head.weight)
        return model


@dataclass(frozen=True)
class Stops(Broken):
    name = "test-stops"

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        return model.requires_grad_(False)


@dataclass(frozen=True)
class Forgets(Broken):
    name = "test-forgets"

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        gain = Gain(0.5)
        gain.factor = None
        model.head = nn.Sequential(model.head, Seen())
        return model


class Seen(nn.Module):
    """Keeps what it learnt outside of the state_dict."""

    seen = None

    def forward(self, x):
        if self.training:
            self.seen = x.detach().mean()
        return x if self.seen is None else x + self.seen


@dataclass(frozen=True)
class Rewrites(Broken):
    name, mechanism = "test-rewrites", "hook"

    @classmethod
    def rewrite(cls, model, chosen, example_inputs):
        return in_place(model)


@pytest.mark.parametrize(
    ("technique", "check"),
    [
        (Cuts(), "the_output_keeps_its_shape"),
        (Draws(), "applying_it_twice_gives_the_same"),
        (Stops(), "it_trains"),
        (Forgets(), "state_dict_round_trip"),
        (Rewrites(), "a_hook_leaves_the_parameters_alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_technique_contract_finds(technique, check):
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(TechniqueContract(), f"test_{check}")(technique)


def test_the_technique_contract_finds_a_shared_weight(monkeypatch):
    monkeypatch.setattr("copy.deepcopy", lambda model: model)
    with pytest.raises(AssertionError, match="changed"):
        TechniqueContract().test_the_given_model_is_untouched(Damp())


class Moody(Counted):
    """Counts differently every time, names what it likes, and touches what it should not."""

    calls = 0

    def fingerprint(self):
        return {"calls": self.calls}

    def cost(self, workload_or_model, *example_inputs, policy=None):
        Moody.calls += 1
        if isinstance(workload_or_model, nn.Module):
            workload_or_model.eval()
            in_place(getattr(workload_or_model, "inner", workload_or_model))
        return CostTable(["a"], ["b"], np.array([float(Moody.calls)]), hi_s=np.array([0.0]), source="")


@pytest.mark.parametrize("check", sorted(name for name in vars(TargetContract) if name.startswith("test_")))
def test_the_target_contract_finds(check):
    harmless = {"test_further_columns_are_what_they_say", "test_it_describes_itself", "test_the_table_survives_json"}
    if check in harmless:
        getattr(TargetContract(), check)(Moody())
        return
    with pytest.raises(AssertionError):
        getattr(TargetContract(), check)(Moody())


def test_a_table_is_json():
    assert json.dumps(TargetContract().cost(Counted()).to_json())
