"""Updates of all of a training's arrays, and their norm, in as few launches as a kernel's parameters allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medsegdiff.kernels.cuda.sources import source
from medsegdiff.kernels.reference import Step
from medsegdiff.runtime.backend import Var, jt

_HEADER = source("update")
MOST = 64
"""Arrays a launch, as in `update.cuh`."""

_FILL = """
fused::Arrays<{kinds}> arrays = {{}};
for (int i = 0; i < {count}; i++) {{
{pointers}
    arrays.add(_inputs[i]->num{keep});
}}
"""
_POINTER = "    arrays.at[{kind}][i] = {where}->ptr<float>();"


def _fill(kinds: Sequence[str], count: str, keep: str = "") -> str:
    """The source that describes the arrays; `kinds` says where the i-th of each is found."""
    pointers = "\n".join(_POINTER.format(kind=kind, where=where) for kind, where in enumerate(kinds))
    return _FILL.format(kinds=len(kinds), count=count, pointers=pointers, keep=keep)


# Inputs are the gradients, then what is overwritten: the outputs, parameters, means and squares.
_STEP = (
    "const int count = _outputs.size() / 3;"
    + _fill(["_inputs[i]", "_outputs[i]", "_outputs[count + i]", "_outputs[2 * count + i]"], "count", ', data["keep"]')
    + """
const fused::Numbers numbers{
    (float)data["scale"], (float)data["rate"], (float)data["correction"], (float)data["beta1"], (float)data["beta2"],
    (float)(1 - data["beta1"]), (float)(1 - data["beta2"]), (float)data["eps"]};
fused::adamw_all(arrays, numbers);
"""
)
_APPROACH = _fill(["_inputs[i]", "_outputs[i]"], "_outputs.size()") + 'fused::approach_all(arrays, data["share"]);'
_SQUARES = _fill(["_inputs[i]"], "_inputs.size()") + "fused::squares_all(arrays, out0_p);"
_CHUNK = 8192  # numbers a block, as in `update.cuh`


def _batches(*columns: Sequence[Var]) -> Iterator[tuple[Sequence[Var], ...]]:
    """Rows of the columns, as many at once as a launch takes.

    Arrays of one number of dimensions come together: Jittor compiles a kernel for each sequence of those.
    """
    order = sorted(range(len(columns[0])), key=lambda index: len(columns[0][index].shape))
    for start in range(0, len(order), MOST):
        chosen = order[start : start + MOST]
        yield tuple([column[index] for index in chosen] for column in columns)


def _overwrite(given: Sequence[Var], held: list[Var], text: str, data: dict[str, float]) -> None:
    with jt.no_grad():
        # Also inputs, or Jittor may free them before their memory is handed on.
        jt.code([*given, *held], held, cuda_header=_HEADER, cuda_src=text, data=data)


def adamw(
    parameters: Sequence[Var], gradients: Sequence[Var], means: Sequence[Var], squares: Sequence[Var], step: Step
) -> None:
    """As in `operations`."""
    data = {name: float(value) for name, value in step._asdict().items()}
    for chosen, given, *moments in _batches(parameters, gradients, means, squares):
        _overwrite(given, [*chosen, *moments[0], *moments[1]], _STEP, data)
    for parameter in parameters:
        parameter.start_grad()


def approach(averages: Sequence[Var], values: Sequence[Var], share: float) -> None:
    """As in `operations`."""
    for held, given in _batches(averages, values):
        _overwrite(given, list(held), _APPROACH, {"share": float(share)})


def sum_of_squares(values: Sequence[Var]) -> Var:
    """As in `operations`."""
    sums = []
    for (chosen,) in _batches(values):
        blocks = sum(-(-value.numel() // _CHUNK) for value in chosen)
        sums.append(jt.code((blocks,), "float64", list(chosen), cuda_header=_HEADER, cuda_src=_SQUARES))
    return jt.concat(sums).sum().reshape(1)
