"""The engines beside plain autograd: exact forward, gradients as the codec promises, and nothing else touched."""

import gc
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from netfit.errors import ConfigError
from netfit.memory import SaveAs, TrainingStep, compress_saved, compressed_saved, grad_fidelity, inventory
from netfit.memory.codecs import KBit
from netfit.surgery import Policy, apply

from .nets import NETS, Residual, images, step_of

LOSSY = {"q8": 0.02, "q4": 0.3, "pool2": 1.0, "bsr25": 1.0, "bf16": 0.02}


def output_and_gradients(step: TrainingStep, policy: object = None, precision: str = "fp32") -> list[torch.Tensor]:
    torch.manual_seed(1)
    how = compressed_saved(step.model, policy) if policy else nullcontext()  # type: ignore[arg-type]
    with how, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = step.loss()
    trained = [p for p in step.model.parameters()]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("word", ["lossless", *LOSSY])
def test_forward_is_exact_and_gradients_are_near(name: str, word: str) -> None:
    step = step_of(name)
    plain = output_and_gradients(step)
    found = output_and_gradients(step_of(name), word)
    assert torch.equal(plain[0], found[0])
    most = LOSSY.get(word, 0.0)
    norm = torch.cat([g.flatten() for g in plain[1:]]).norm()
    difference = torch.cat([(g - h).flatten() for g, h in zip(plain[1:], found[1:], strict=True)]).norm()
    assert difference <= max(most, 1e-6) * norm


@pytest.mark.parametrize("name", ["residual", "inplace", "tokens"])
@pytest.mark.parametrize("word", ["lossless", "q8"])
def test_autocast(name: str, word: str) -> None:
    plain = output_and_gradients(step_of(name), precision="bf16")
    found = output_and_gradients(step_of(name), word, precision="bf16")
    assert torch.equal(plain[0], found[0])
    for a, b in zip(plain[1:], found[1:], strict=True):
        assert (a - b).norm() <= (1e-6 if word == "lossless" else 0.1) * a.norm() + 1e-7


def test_twenty_lossless_steps_are_those_of_plain_training() -> None:
    states = []
    for word in (None, "lossless"):
        step = step_of("residual")
        optimizer = torch.optim.SGD(step.model.parameters(), lr=0.05, momentum=0.9)
        with compressed_saved(step.model, word) if word else nullcontext():
            for _ in range(20):
                optimizer.zero_grad()
                step.loss().backward()
                optimizer.step()
        states.append(step.model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert int(states[1]["bn.num_batches_tracked"]) == 20
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_lossless_keeps_less_and_q4_far_less() -> None:
    step = step_of("residual")
    plain, lossless, q4 = (inventory(step, policy=word).total for word in (None, "lossless", "q4"))
    assert lossless < 0.8 * plain
    assert q4 < 0.25 * plain


@pytest.mark.parametrize("word", ["lossless", "q4"])
def test_channels_last(word: str) -> None:
    def step() -> TrainingStep:
        plain = step_of("residual")
        model = plain.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return TrainingStep(model, images().to(memory_format=torch.channels_last), plain.targets, plain.loss_fn)

    plain, found = output_and_gradients(step()), output_and_gradients(step(), word)
    assert torch.equal(plain[0], found[0])
    assert all((a - b).norm() <= 0.5 * a.norm() + 1e-6 for a, b in zip(plain, found, strict=True))


def test_accumulation_and_a_graph_that_is_read_twice() -> None:
    step = step_of("residual")
    parameters = list(step.model.parameters())
    with compressed_saved(step.model, "q4", seed=7):
        loss = step.loss()
    once = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert all(map(torch.equal, once, torch.autograd.grad(loss, parameters)))
    for _ in range(2):
        with compressed_saved(step.model, "q4", seed=7):
            step.loss().backward()
    assert all(torch.allclose(p.grad, 2 * g, atol=1e-5) for p, g in zip(parameters, once, strict=True))


def test_a_tensor_used_twice_is_packed_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre, self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.pre(x)
            return self.a(x) + self.b(x)

    step = TrainingStep(Twice(), torch.randn(128, 64))
    rows = [r for r in inventory(step, policy="q4").rows if r.name in ("a", "b") and r.role != "parameter"]
    size = KBit(4).nbytes((128, 64), torch.float32)
    assert [r.kept_bytes for r in rows] == [size, 0]


def test_the_address_of_a_freed_tensor_brings_back_no_other_one() -> None:
    layers = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(64, 64), nn.GELU())])
    step = TrainingStep(layers, torch.randn(256, 64))
    for _ in range(3):
        assert grad_fidelity(step, "q8").total < 0.02


@pytest.mark.parametrize("inner", ["lossless", "q4"])
def test_what_torch_checkpoints_is_recomputed_not_packed(inner: str) -> None:
    class Checkpointed(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.act(self.bn(self.stem(x)))

            def block(x: torch.Tensor) -> torch.Tensor:
                return self.b(F.relu(self.a(x)))

            x = checkpoint(block, x, use_reentrant=False) + x
            return self.fc(F.avg_pool2d(x, 16).flatten(1))

    torch.manual_seed(0)
    step = TrainingStep(Checkpointed().train(), images())
    trained = [p for n, p in step.model.named_parameters() if n.split(".")[0] in ("stem", "a", "b", "fc")]

    def grads(policy: str | None) -> tuple[torch.Tensor, ...]:
        with compressed_saved(step.model, policy) if policy else nullcontext():
            loss = step.loss()
        return torch.autograd.grad(loss, trained)

    for a, b in zip(grads(None), grads(inner), strict=True):
        assert (a - b).norm() <= (0 if inner == "lossless" else 0.3) * a.norm()


def test_nothing_is_kept_without_gradients() -> None:
    step = step_of("residual")
    model = apply(step.model, Policy({"*": SaveAs("q4")}), *step.inputs)
    with torch.no_grad():
        assert model(*step.inputs).grad_fn is None
    assert all(int(v) == 0 for k, v in model.state_dict().items() if k.endswith(".step"))


def test_the_technique_and_the_handle_save_the_same() -> None:
    step = step_of("residual")
    model = apply(step.model, Policy({"*": SaveAs("lossless")}), *step.inputs).train()
    plain = output_and_gradients(step_of("residual"))
    other = output_and_gradients(TrainingStep(model, step.inputs, step.targets, step.loss_fn))
    assert all(map(torch.equal, plain, other))


def test_a_kept_tensor_that_was_changed_in_place_is_an_error_as_in_autograd() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            y = self.b(x)
            x.mul_(2)
            return y

    step = TrainingStep(Wrong(), torch.randn(128, 64))
    with compressed_saved(step.model, "lossless"):
        loss = step.loss()
    with pytest.raises(RuntimeError, match="in-place operation"):
        loss.backward()
    with compressed_saved(step.model, "q8"):  # packed before the change: the right gradient
        step.loss().backward()


def test_a_gradient_of_a_lossy_gradient_is_refused() -> None:
    step = step_of("residual")
    with compressed_saved(step.model, "q4"):
        loss = step.loss()
    with pytest.raises(ConfigError, match="gradient of a gradient"):
        torch.autograd.grad(loss, list(step.model.parameters()), create_graph=True)


def test_a_handle_is_removed_and_a_failed_forward_leaves_nothing_behind() -> None:
    step = step_of("residual")
    handle = compress_saved(step.model, "q4")
    with pytest.raises(RuntimeError):
        step.model(torch.randn(2, 4, 16, 16))
    assert torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    handle.remove()
    handle.remove()
    assert not step.model._forward_hooks and not step.model._forward_pre_hooks
    assert all(map(torch.equal, output_and_gradients(step), output_and_gradients(step_of("residual"))))


def test_patterns_later_ones_win_and_one_that_matches_nothing_is_named() -> None:
    step = step_of("residual")
    some = inventory(step, policy={"*": "q4", "kind:batch_norm": "keep"}).by_kind()
    assert some["batch_norm"] == inventory(step).by_kind()["batch_norm"]
    with compressed_saved(step.model, {"stem_": "q4"}), pytest.raises(ConfigError, match="did you mean 'stem'"):
        step.loss()
    with pytest.raises(ConfigError, match="no save_as"), compressed_saved(step.model, Policy()):
        step.loss()


def test_freed_graphs_leave_no_payload() -> None:
    step = step_of("residual")
    with compressed_saved(step.model, "lossless"):
        step.loss().backward()
        gc.collect()
        # By type: asking other libraries' objects for their class may warn.
        big = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor) and o.numel() == 8 * 16 * 16 * 16]
    assert big == []


def compiled(model: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(model, backend="aot_eager", fullgraph=True)  # type: ignore[return-value]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_module_engine_alone_and_compiled(precision: str) -> None:
    results = []
    for how in ("plain", "modules", "compiled"):
        step = step_of("residual")
        model = step.model
        handle = None if how == "plain" else compress_saved(model, "q8", engine="modules")
        if how == "compiled":
            model = compiled(model)
        with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            warnings.simplefilter("ignore")
            for _ in range(2):
                step.model.zero_grad()
                loss = F.cross_entropy(model(*step.inputs), *step.targets)
                loss.backward()
        results.append((loss.detach(), {n: p.grad for n, p in step.model.named_parameters()}, step.model.state_dict()))
        if handle is not None:
            handle.remove()
            assert type(step.model.bn) is nn.BatchNorm2d
    plain, *others = results
    for loss, grads, state in others:
        assert torch.allclose(loss, plain[0], atol=1e-5 if precision == "fp32" else 2e-2)
        whole, other = (torch.cat([g.flatten() for g in d.values()]) for d in (plain[1], grads))
        assert (whole - other).norm() <= (0.02 if precision == "fp32" else 0.2) * whole.norm()
        assert state["bn.num_batches_tracked"] == 2
        assert torch.allclose(
            state["bn.running_var"], plain[2]["bn.running_var"], rtol=1e-4 if precision == "fp32" else 0.1
        )


def test_layer_norm_by_the_module_engine() -> None:
    step, torch_seed = step_of("tokens"), 3
    grads = []
    for engine in (None, "modules"):
        handle = compress_saved(step.model, {"norm": "q8"}, engine="modules") if engine else None
        torch.manual_seed(torch_seed)
        grads.append(torch.cat([g.flatten() for g in step.gradients().values()]))
        if handle:
            handle.remove()
    assert 0 < (grads[0] - grads[1]).norm() < 0.02 * grads[0].norm()


def test_hooks_refuse_to_be_compiled_and_modules_refuse_what_they_cannot_do() -> None:
    step = step_of("residual")
    with compressed_saved(step.model, "q4"), pytest.raises(Exception, match="engine='modules'"):
        compiled(step.model)(*step.inputs)
    with pytest.raises(ConfigError, match="not pool2"):
        compress_saved(step.model, "pool2", engine="modules")
    with pytest.raises(ConfigError, match="matches no BatchNorm"):
        compress_saved(step.model, {"stem": "q4"}, engine="modules")
    with pytest.raises(ConfigError, match="hooks"):
        compress_saved(step.model, "q4", engine="magic")  # type: ignore[arg-type]


RANKS = """
import os, sys, tempfile, torch, torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from netfit.memory import compressed_saved
from tests.memory.nets import step_of
torch.set_num_threads(1)
rank = 0 if os.fork() else 1
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
step = step_of("residual")
net = DistributedDataParallel(step.model)
with compressed_saved(step.model, sys.argv[2]):
    loss = F.cross_entropy(net(step.inputs[0] * (1 + rank)), *step.targets)
loss.backward()
mine = torch.cat([p.grad.flatten() for p in step.model.parameters()])
both = [torch.empty_like(mine) for _ in range(2)]
torch.distributed.all_gather(both, mine)
assert torch.equal(*both) and bool(mine.isfinite().all()) and bool(mine.any())
torch.distributed.destroy_process_group()
if rank == 0:
    _, code = os.wait()
    print("equal" if code == 0 else "failed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("word", ["lossless", "q4"])
def test_two_ranks_agree(word: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RANKS, str(tmp_path / "store"), word]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=280)
    assert done.stdout.strip() == "equal", done.stderr[-500:]
