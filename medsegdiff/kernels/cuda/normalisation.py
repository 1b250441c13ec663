"""Group norm and batch norm in one launch, and their gradients in one."""

from __future__ import annotations

from typing import Any

from medsegdiff.kernels.cuda.sources import source
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = source("normalisation")
_UNITS = """
const int N = in0_shape0, C = in0_shape1;
const fused::Units units{N, C, (int)(in0->num / (N * C)), (int)data["groups"], (int)in1->num};
const bool silu = data["silu"];
"""
_FORWARD = f"{_UNITS} fused::norm_forward(in0_p, in1_p, in2_p, out0_p, out1_p, units, silu);"
_BACK = "in0_p, in1_p, in2_p, in3_p, in4_p, out0_p, out1_p, out2_p"
_BACKWARD = f"{_UNITS} fused::norm_backward({_BACK}, units, silu);"
_BACKWARD_SHARED = f"{_UNITS} fused::norm_backward_shared({_BACK}, out3_p, units, silu);"


class _Norm(Function):
    """Group norm, or batch norm where there are no `groups`; also gives each unit's mean, variance and rest."""

    def __init__(self, groups: int, silu: bool) -> None:
        self.data = {"groups": float(groups), "silu": float(silu)}
        self.groups = groups

    def execute(self, x: Var, weight: Var, bias: Var) -> tuple[Var, Var]:
        units = x.shape[0] * self.groups or x.shape[1]
        y, statistics = self._code([x.shape, [units, 3]], [x, weight, bias], _FORWARD)
        self.save(x, weight, bias, statistics)
        return y, statistics

    def grad(self, grad: Var, _: Any) -> list[Var]:
        saved = self.saved()
        x, weight, bias, _ = saved
        shapes = [value.shape for value in (x, weight, bias)]
        if self.groups and weight.shape[0] < x.shape[0]:
            parts = [2, *x.shape[:2]]
            return self._code([*shapes, parts], [*saved, grad], _BACKWARD_SHARED)[:3]
        return self._code(shapes, [*saved, grad], _BACKWARD)

    def _code(self, shapes: list[Any], inputs: list[Var], text: str) -> list[Var]:
        return jt.code(
            shapes, ["float32"] * len(shapes), inputs, cuda_header=_HEADER, cuda_src=text, data=dict(self.data)
        )


def group_norm(x: Var, weight: Var, bias: Var, groups: int, silu: bool = False) -> Var:
    """As in `operations`."""
    return _Norm(groups, silu)(x, weight, bias)[0]


def batch_norm(x: Var, weight: Var, bias: Var) -> tuple[Var, Var, Var]:
    """As in `operations`."""
    y, statistics = _Norm(0, False)(x, weight, bias)
    statistics = statistics.detach()
    return y, statistics[:, 0], statistics[:, 1]
