import json

from medsegdiff.training.loss_scale import FLOOR, START, LossScale


def test_it_starts_at_a_power_of_two():
    assert LossScale(1e-3).value == START == 2**16


def test_it_doubles_after_so_many_finite_gradients_in_a_row():
    scale = LossScale(growth=0.25, start=8)
    seen = []
    for _ in range(9):
        assert scale.update(True) is False
        seen.append(scale.value)
    assert seen == [8, 8, 8, 16, 16, 16, 16, 32, 32]


def test_it_halves_with_every_other_gradient_and_counts_anew():
    scale = LossScale(growth=0.25, start=8)
    for finite in (True, True, True):
        scale.update(finite)
    assert scale.update(False) is True
    assert scale.value == 4
    for _ in range(3):
        scale.update(True)
    assert scale.value == 4
    scale.update(True)
    assert scale.value == 8


def test_at_the_floor_it_is_not_to_blame():
    scale = LossScale(growth=1e-3, start=4)
    assert [scale.update(False) for _ in range(4)] == [True, True, False, False]
    assert scale.value == FLOOR == 1


def test_the_published_growth_doubles_it_in_a_thousand_steps():
    assert LossScale(1e-3).patience == 1000


def test_without_growth_it_stays():
    scale = LossScale(growth=0, start=1)
    assert [scale.update(finite) for finite in [True] * 5000 + [False]] == [False] * 5001
    assert scale.value == 1


def test_it_goes_on_where_its_state_was_saved():
    whole, first = LossScale(0.2, 64), LossScale(0.2, 64)
    course = [True, True, False, True, True, True, True, True, True, False, True]
    for finite in course:
        whole.update(finite)
    for finite in course[:5]:
        first.update(finite)
    second = LossScale(0.2)
    second.load(json.loads(json.dumps(first.state())))
    for finite in course[5:]:
        second.update(finite)
    assert second.state() == whole.state()
