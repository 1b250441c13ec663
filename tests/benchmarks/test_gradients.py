import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import gradients  # noqa: E402

# Four times and more what was measured (docs/alignment/README.md). A gradient that is a sum which cancels loses as many
# times float32's rounding, 6e-8, as the sum is smaller than its terms: up to 500 times.
TOLERANCE = 2e-4
# Of normalised maps, whose numbers are near 1: what is further off is no rounding.
ROUNDING = 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("size", [64, *(pytest.param(size, marks=pytest.mark.extended) for size in (128, 256))])
@pytest.mark.parametrize("version", ["v1", "new", "v2"])
def test_every_gradient_is_pytorchs_where_the_choices_are_the_same(version, size):
    case = gradients.make_case(version, size, width=64)
    ours, maps = gradients.our_step(case)
    held = []
    _, exact = gradients.torch_step(
        case, torch.float64, lambda network: held.append(gradients.beside(network, maps, hold=True))
    )
    errors, crossed = held[0]
    assert errors.keys() == maps.keys()
    assert len(errors) == 22
    assert max(errors.values()) < ROUNDING
    assert max(np.abs(values).max(initial=0) for values in crossed.values()) < ROUNDING
    assert ours.keys() == exact.keys()
    compared = gradients.differences(ours, exact)
    assert len(compared) == len(exact) - 22
    assert {name: error for name, error in compared.items() if error > TOLERANCE} == {}
    assert max(np.linalg.norm(ours[name]) for name in exact if name not in compared) < 1e-5


def test_activations_that_are_held_make_the_other_choices():
    case = gradients.make_case("v1", 64, width=64)
    _, maps = gradients.our_step(case)
    _, before = gradients.torch_step(case, torch.float64, lambda network: gradients.beside(network, maps, hold=True))
    unit = "conv_blocks_context.1.blocks.0"
    index = np.argmin(np.abs(maps[unit]))
    value = maps[unit].flat[index]
    maps[unit].flat[index] = -value
    found = []
    _, after = gradients.torch_step(
        case, torch.float64, lambda network: found.append(gradients.beside(network, maps, hold=True))
    )
    np.testing.assert_allclose(found[0][1][unit], [value], atol=1e-5)
    assert max(gradients.differences(after, before).values()) > 1e-3
    assert max(gradients.differences(before, before).values()) == 0


def test_it_says_what_is_rounding_and_what_a_choice(capsys):
    gradients.main(["--versions", "v1", "--sizes", "64", "--width", "64"])
    said = capsys.readouterr().out
    assert said.startswith("train-v1-64, width 64: ")
    assert [line.split(":")[0].strip() for line in said.splitlines()[2:]] == [
        "PyTorch float32",
        "ours",
        "ours, same choices",
    ]
