import torch
from torch import nn

from netfit.deploy._program import fold_batch_norm
from netfit.workload import export_program


def _kinds(program):
    return [str(n.target).split(".")[1] for n in program.graph.nodes if n.op == "call_function"]


def test_folding_keeps_the_function_and_the_model(nets):
    for name in ("residual", "concat", "repeated"):
        net = nets(name)
        before = {k: v.clone() for k, v in net.model.state_dict().items()}
        program = export_program(net.model, net.example)
        factors = fold_batch_norm(program)
        assert "batch_norm" not in _kinds(program)
        assert torch.allclose(program.module()(net.example), net.model(net.example), atol=1e-5)
        assert all(torch.equal(v, before[k]) for k, v in net.model.state_dict().items())
        for weight, factor in factors.items():
            w, folded = before[weight], program.state_dict[weight]
            assert torch.allclose(folded, w * factor.reshape(-1, *[1] * (w.ndim - 1)))


def test_folded_parameters_keep_their_layer_s_names(nets):
    net = nets("residual")
    program = export_program(net.model, net.example)
    assert set(fold_batch_norm(program)) == {f"block{b}.conv{c}.weight" for b in (1, 2) for c in (1, 2)}
    assert "block1.conv1.bias" in program.state_dict
    assert "block1.bn1.running_mean" not in set(program.graph_signature.inputs_to_buffers.values())


def test_batch_norms_that_do_not_follow_a_layer_stay():
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.conv, self.branch = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(self.bn(x))
            return self.branch(y) + y  # a second reader of y

    program = export_program(Before().eval(), torch.randn(2, 3, 4, 4))
    assert fold_batch_norm(program) == {}
    assert _kinds(program).count("batch_norm") == 2


def test_one_weight_with_two_batch_norms_stays():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.b(self.conv(self.a(self.conv(x))))

    assert fold_batch_norm(export_program(Two().eval(), torch.randn(2, 3, 4, 4))) == {}
