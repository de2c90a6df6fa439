"""What every technique owes its users."""

import copy
from typing import ClassVar

import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Technique, apply, calibrate, plain

from ._net import same_state, small_input, small_net, state_of


class TechniqueContract:
    """Checks of a technique; subclass it in a test file and give it a pytest fixture called ``technique``.

    Override `model`, `example_inputs`, `pattern` or `prepare` where the defaults do not fit.

    Attributes:
        pattern: sites the technique is applied to; those of kinds it cannot handle are left out.

    Example::

        class TestHalve(TechniqueContract):
            @pytest.fixture
            def technique(self):
                return Halve(factor=0.5)
    """

    pattern: ClassVar[str] = "*"

    def model(self) -> nn.Module:
        """The network to change: a new one with the same weights at every call, which returns one tensor."""
        return small_net()

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """What the network is called with, the same at every call."""
        return (small_input(),)

    def prepare(self, changed: nn.Module) -> None:
        """What users do between `apply` and the first use: calibrate activation scales."""
        calibrate(changed, [self.example_inputs()])

    def changed(self, technique: Technique, model: nn.Module | None = None) -> nn.Module:
        """The network with the technique applied and prepared."""
        policy = Policy({self.pattern: technique})
        new = apply(self.model() if model is None else model, policy, *self.example_inputs())
        self.prepare(new)
        return new

    def outputs(self, model: nn.Module) -> torch.Tensor:
        """What a network computes in evaluation mode; techniques that draw numbers get the same ones every time."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(2)
            return model.eval()(*self.example_inputs())

    def step(self, model: nn.Module) -> None:
        """One step of training, as far as the gradients go."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model.train()(*self.example_inputs()).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)

    def test_the_given_model_is_untouched(self, technique: Technique) -> None:
        """Neither `apply` nor training the result changes the original, bit for bit."""
        model = self.model()
        before, modes = state_of(model), [m.training for m in model.modules()]
        new = self.changed(technique, model)
        self.step(new)
        assert same_state(before, state_of(model)), "the given model's weights or statistics changed"
        assert modes == [m.training for m in model.modules()], "the given model changed between train and eval"
        assert not any(p.grad is not None for p in model.parameters()), "the given model got gradients"

    def test_the_output_keeps_its_shape(self, technique: Technique) -> None:
        """Shape and type of the output stay, and its values are finite."""
        out, was = self.outputs(self.changed(technique)), self.outputs(self.model())
        assert (out.shape, out.dtype) == (was.shape, was.dtype), "the output changed its shape or type"
        assert bool(out.isfinite().all()), "the output holds NaN or infinity"

    def test_it_trains(self, technique: Technique) -> None:
        """Gradients reach the parameters, are finite, and a step of training changes the output."""
        new = self.changed(technique)
        before = self.outputs(new)
        self.step(new)
        gradients = [p.grad for p in new.parameters() if p.grad is not None]
        assert any(bool((g != 0).any()) for g in gradients), "no gradient reaches any parameter"
        assert all(bool(g.isfinite().all()) for g in gradients), "a gradient holds NaN or infinity"
        assert not torch.equal(before, self.outputs(new)), "a step of training changes nothing"

    def test_applying_it_twice_gives_the_same(self, technique: Technique) -> None:
        """The same network, technique and inputs give the same result: nothing is drawn without a seed."""
        first, second = self.changed(technique), self.changed(technique)
        assert same_state(state_of(first), state_of(second)), "two results of one policy differ in their state"
        assert torch.equal(self.outputs(first), self.outputs(second)), "two results of one policy differ"

    def test_state_dict_round_trip(self, technique: Technique) -> None:
        """A trained result is restored by `apply` and ``load_state_dict``: this is how artifacts are read."""
        trained = self.changed(technique)
        self.step(trained)
        expected = self.outputs(trained)
        restored = apply(self.model(), Policy({self.pattern: technique}), *self.example_inputs())
        restored.load_state_dict(state_of(trained))
        assert torch.equal(expected, self.outputs(restored)), "the state_dict does not hold all of the result"

    def test_deep_copy(self, technique: Technique) -> None:
        """A copy computes the same and shares nothing."""
        new = self.changed(technique)
        other = copy.deepcopy(new)
        expected = self.outputs(new)
        assert torch.equal(expected, self.outputs(other)), "a deep copy computes something else"
        self.step(other)
        assert torch.equal(expected, self.outputs(new)), "training a deep copy changes the first one"

    def test_policy_file_round_trip(self, technique: Technique) -> None:
        """A policy goes to TOML and plain values and comes back equal."""
        policy = Policy({self.pattern: technique, "kind:conv2d": technique})
        assert Policy.from_toml(policy.to_toml()) == policy, "TOML does not give the technique back"
        assert Policy.from_dict(policy.to_dict()) == policy, "plain values do not give the technique back"
        assert hash(copy.deepcopy(technique)) == hash(technique), "equal techniques have different hashes"

    def test_a_pattern_that_matches_nothing(self, technique: Technique) -> None:
        """It is an error that names the pattern."""
        try:
            apply(self.model(), Policy({"no.such.place": technique}), *self.example_inputs())
        except ConfigError as e:
            assert "no.such.place" in str(e), "the error does not name the pattern"
        else:
            raise AssertionError("a pattern that matches nothing was accepted")

    def test_a_hook_leaves_the_parameters_alone(self, technique: Technique) -> None:
        """A hook technique keeps every state_dict key and value, and `plain` takes it off again."""
        if technique.mechanism != "hook":
            return
        model = self.model()
        new = self.changed(technique, model)
        state = state_of(new)
        kept = {key: state[key] for key in model.state_dict() if key in state}
        assert same_state(kept, state_of(model)), "a hook changed a key or a value of the model's own state"
        assert torch.equal(self.outputs(plain(new)), self.outputs(model)), "plain() does not give the network back"
