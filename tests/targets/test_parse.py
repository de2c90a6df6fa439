"""Targets by name."""

from importlib.metadata import EntryPoint

import pytest

from netfit.errors import ConfigError, TargetUnavailable
from netfit.targets import CostTable, DeviceSpec, HostCPU, Remote, Target, _parse, parse


class Toy(Target):
    kind = "simulated"

    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    @property
    def spec(self) -> DeviceSpec:
        return DeviceSpec("toy")

    def fingerprint(self) -> dict:
        return {"target": "toy"}

    def precisions(self, kind: str) -> tuple[str, ...]:
        return ("fp32",)

    def cost(self, workload_or_model, *example_inputs, policy=None) -> CostTable:
        return CostTable((), (), [])


def not_a_target(argument: str) -> int:
    return 3


def test_host_names_its_runtime() -> None:
    for text, runtime in [("host", "openvino"), ("host:onnxruntime", "onnxruntime"), ("host:fastest", "fastest")]:
        target = parse(text)
        assert isinstance(target, HostCPU)
        assert target.runtime == runtime


@pytest.mark.parametrize(
    ("text", "hint"),
    [("hots", "did you mean 'host'"), ("", "known: "), ("host:openvin", "did you mean 'openvino'")],
)
def test_unknown_names_get_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse(text)


def test_installed_packages_bring_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("toy", f"{__name__}:Toy", _parse.GROUP),
        EntryPoint("wrong", f"{__name__}:not_a_target", _parse.GROUP),
        EntryPoint("gone", "no_such_module_anywhere:x", _parse.GROUP),
        EntryPoint("host", f"{__name__}:Toy", _parse.GROUP),  # a built-in name may not
    ]
    monkeypatch.setattr(_parse, "entry_points", lambda group: points if group == _parse.GROUP else [])
    toy = parse("toy:16x16")
    assert (toy.kind, toy.argument, toy.channel_step) == ("simulated", "16x16", 1)
    assert isinstance(parse("host"), HostCPU)
    with pytest.raises(ConfigError, match=r"made a int, which is not a netfit\.targets\.Target"):
        parse("wrong")
    with pytest.raises(TargetUnavailable, match="no_such_module_anywhere"):
        parse("gone")


def test_remote_takes_its_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETFIT_REMOTE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="NETFIT_REMOTE_TOKEN"):
        parse("remote:http://127.0.0.1:1")
    monkeypatch.setenv("NETFIT_REMOTE_TOKEN", "x" * 16)
    assert isinstance(parse("remote:http://127.0.0.1:1"), Remote)
