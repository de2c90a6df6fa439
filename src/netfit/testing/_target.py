"""What every target owes its users."""

import json

import numpy as np
import torch
from torch import nn

from netfit.errors import NetfitError
from netfit.surgery import Policy, Quantize
from netfit.targets import CostTable, DeviceSpec, Target
from netfit.workload import trace

from ._net import Inside, same_state, small_input, small_net, state_of


class TargetContract:
    """Checks of a target; subclass it in a test file and give it a pytest fixture called ``target``.

    Targets that compute (every kind but ``"measured"``) must answer the same question with the same numbers;
    measured ones are spared the comparisons of times, never those of form.

    Example::

        class TestBoard(TargetContract):
            @pytest.fixture
            def target(self):
                return Board("simulator")
    """

    def model(self) -> nn.Module:
        """The network whose cost is asked, with the same weights at every call."""
        return small_net()

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """What the network is called with, batch axis first."""
        return (small_input(),)

    def cost(self, target: Target) -> CostTable:
        """Cost of the network."""
        return target.cost(self.model(), *self.example_inputs())

    def test_costs_are_finite_and_ordered(self, target: Target) -> None:
        """Times are finite and not negative, lie in their interval, and sum to something."""
        table = self.cost(target)
        for name in ("time_s", "lo_s", "hi_s"):
            column = getattr(table, name)
            assert np.isfinite(column).all() and (column >= 0).all(), f"{name} holds a value that is no time"
        assert (table.lo_s <= table.time_s).all() and (table.time_s <= table.hi_s).all(), "a time is not in [lo, hi]"
        assert table.total().time_s > 0, "the network costs no time at all"
        assert table.source, "the table does not say how its numbers came about"

    def test_further_columns_are_what_they_say(self, target: Target) -> None:
        """Utilization is a share; energy and bytes are finite and not negative."""
        table = self.cost(target)
        if table.utilization is not None:
            assert ((table.utilization >= 0) & (table.utilization <= 1)).all(), "a utilization is not in [0, 1]"
        energy = [] if table.energy_j is None else [table.energy_j]
        for column in (*energy, *table.bytes.values(), *table.breakdown.values()):
            assert np.isfinite(column).all() and (column >= 0).all(), "a column holds a negative or endless value"

    def test_rows_are_the_operators(self, target: Target) -> None:
        """One row per operator, by its name, in order; a measured table may merge operators that ran as one kernel."""
        table, workload = self.cost(target), trace(self.model(), *self.example_inputs())
        if target.kind != "measured":
            assert table.names == tuple(op.name for op in workload), "the rows are not the workload's operators"
            assert table.kind == tuple(op.kind for op in workload), "the kinds are not the workload's"
        layers = {op.name for op in workload if "weight" in op.params and op.kind != "batch_norm"}
        assert layers <= set(table.names), f"no row for {sorted(layers - set(table.names))}"

    def test_a_workload_costs_what_its_model_costs(self, target: Target) -> None:
        """A traced workload gives the table of its model, or an error that says that a model is needed."""
        workload = trace(self.model(), *self.example_inputs())
        try:
            table = target.cost(workload)
        except NetfitError:
            return
        if target.kind != "measured":
            self._assert_same_times(table, self.cost(target), "asking with a workload")

    def test_the_table_survives_json(self, target: Target) -> None:
        """Kept and sent tables are the same tables."""
        table = self.cost(target)
        back = CostTable.from_json(json.loads(json.dumps(table.to_json())))
        assert back.to_json() == table.to_json(), "JSON does not give the table back"

    def test_the_given_model_is_untouched(self, target: Target) -> None:
        """Asking for a cost, with a policy or without one, changes nothing of the model."""
        model = self.model().train()
        before = state_of(model)
        target.cost(model, *self.example_inputs())
        target.cost(model, *self.example_inputs(), policy=Policy())
        assert same_state(before, state_of(model)), "cost changed the model's weights or statistics"
        assert model.training, "cost left the model in evaluation mode"

    def test_the_fingerprint_is_stable(self, target: Target) -> None:
        """It is JSON, not empty, and measuring does not change it."""
        first = target.fingerprint()
        self.cost(target)
        assert first, "the fingerprint is empty"
        assert json.loads(json.dumps(first)) == first == target.fingerprint(), "the fingerprint changes or is no JSON"

    def test_it_describes_itself(self, target: Target) -> None:
        """Device, precisions and channel step have usable values."""
        assert isinstance(target.spec, DeviceSpec) and target.spec.name, "the device has no name"
        assert target.channel_step >= 1, "the channel step is less than one"
        for kind in ("conv2d", "linear"):
            assert target.precisions(kind), f"no precision for {kind}"
            for name in target.precisions(kind):
                Quantize.of(name)  # raises unless a policy can ask for it

    def test_an_input_that_does_not_fit(self, target: Target) -> None:
        """It is a NetfitError, not a traceback from below."""
        try:
            target.cost(self.model(), torch.zeros(1, 1))
        except NetfitError:
            return
        raise AssertionError("an input that the model cannot take was accepted")

    def test_equal_questions_get_equal_answers(self, target: Target) -> None:
        """For targets that compute: repeating, reordering the batch, or an empty policy changes no number."""
        if target.kind == "measured":
            return
        table = self.cost(target)
        self._assert_same_times(table, self.cost(target), "asking again")
        flipped = tuple(x.flip(0) for x in self.example_inputs())
        self._assert_same_times(table, target.cost(self.model(), *flipped), "another order of the batch")
        unchanged = target.cost(self.model(), *self.example_inputs(), policy=Policy())
        self._assert_same_times(table, unchanged, "an empty policy")

    def test_names_and_unused_layers_cost_nothing(self, target: Target) -> None:
        """For targets that compute: renaming every layer and adding one that is never called changes no number."""
        if target.kind == "measured":
            return
        other = target.cost(Inside(self.model()), *self.example_inputs())
        self._assert_same_times(self.cost(target), other, "other names and an unused layer")

    def _assert_same_times(self, a: CostTable, b: CostTable, reason: str) -> None:
        same = a.time_s.shape == b.time_s.shape and bool((a.time_s == b.time_s).all())
        assert same, f"{reason} changed the cost"
