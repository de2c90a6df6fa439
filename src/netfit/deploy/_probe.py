"""ONNX models for timing: many widths and precisions of one network from a single export."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from netfit.surgery import Quantization, plain
from netfit.workload import from_program

from ._convert import to_onnx, with_policy
from ._onnx import lower, open_program
from ._program import fold_batch_norm
from ._qdq import QuantSpec, quantize
from ._reslice import reslice

_HOOKS = "netfit_hooks."


class Probe:
    """Makes the file that a changed network would export to, in milliseconds and with values good only for timing.

    Args:
        model: the network that policies are applied to.
        example_inputs: one tensor for each of its inputs.

    Raises:
        UnsupportedLayerError: the network cannot be exported.
    """

    def __init__(self, model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> None:
        base = plain(model)
        program = open_program(base, example_inputs)
        self._inputs = tuple(example_inputs)
        self._workload = from_program(program)
        self._names = set(base.state_dict())
        fold_batch_norm(program)
        self._proto = lower(program, type(model).__name__)

    def onnx(self, model: nn.Module) -> Any:
        """ONNX model of a network that a policy pruned or quantized.

        A network whose parameters have other names, or whose graph depends on its widths in an unknown way, is
        exported anew.
        """
        tensors = {n: t for n, t in model.state_dict().items() if not n.startswith(_HOOKS)}
        proto = None
        if tensors.keys() == self._names:
            proto = reslice(self._proto, {n: t.detach().numpy() for n, t in tensors.items()})
        if proto is None:
            return to_onnx(model, self._inputs)
        state = Quantization.of(model)
        if state is None:
            return quantize(proto, QuantSpec())
        steps = {}
        for op in self._workload:
            if op.key in state.plan.layers:
                w = tensors[op.params["weight"].name].detach().flatten(1)
                steps[op.params["weight"].name] = (w.abs().amax(1) / 127).numpy().astype(np.float32)
        return with_policy(proto, state, self._workload, steps)
