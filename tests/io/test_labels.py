import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.io.labels import (
    count_classes,
    format_labels,
    parse_labels,
    to_classes,
    to_values,
    whole_numbers,
    without_label,
)

VALUES = np.array([0, 1, 2, 4, 4, 9])


@pytest.mark.parametrize(
    ("text", "classes", "values"),
    [
        ("1,2,4", [0, 1, 2, 3, 3, 0], [0, 1, 2, 4, 4, 0]),
        ("4,1", [0, 2, 0, 1, 1, 0], [0, 1, 0, 4, 4, 0]),
        ("1:1,2:1,4:2", [0, 1, 1, 2, 2, 0], [0, 1, 1, 4, 4, 0]),
        ("1:1,2:0,4:1", [0, 1, 0, 1, 1, 0], [0, 1, 0, 1, 1, 0]),
        ("9:0,0:1,1:2", [1, 2, 0, 0, 0, 0], [0, 1, 9, 9, 9, 9]),
    ],
)
def test_values_become_classes_and_come_back(text, classes, values):
    labels = parse_labels(text)
    found = to_classes(VALUES, labels)
    assert found.dtype == np.uint8
    assert found.tolist() == classes
    assert to_values(found, labels).tolist() == values
    assert parse_labels(format_labels(labels)) == labels
    assert count_classes(labels) == max(classes) + 1


def test_without_labels_there_are_two_classes_and_values_are_classes():
    assert parse_labels("") == {}
    assert count_classes({}) == 2
    assert to_values(np.array([0, 1, 2], np.uint8), {}).tolist() == [0, 1, 2]
    assert without_label(VALUES, parse_labels("1,2")) == [4, 9]


@pytest.mark.parametrize("values", [[1, 255], [-1, 2], [256, 32767], [1002, 40000], [-5, 2**31 - 1], [2**40, 3]])
def test_values_of_any_size_come_back(values):
    labels = {value: place for place, value in enumerate(values, 1)}
    assert to_values(np.array([0, 1, 2], np.uint8), labels).tolist() == [0, *values]


def test_of_labels_with_0_another_value_is_the_background():
    assert without_label(np.array([0, 128, 255]), parse_labels("128,0")) == []
    assert without_label(np.array([0, 9, 255]), parse_labels("0:1,9:0")) == [255]


@pytest.mark.parametrize(
    "text", ["1;2", "a", "1,2:1", "1,1", "1:2", "1:1,2:3", "1:0", "1:1,2:1,", "1:300", "9" * 12, "\u0663"]
)
def test_what_is_no_labels_is_refused(text):
    with pytest.raises(InputError, match="labels"):
        parse_labels(text)


def test_labels_may_be_stored_as_fractions_that_are_whole():
    assert whole_numbers(np.array([0.0, 2.0]), "a").tolist() == [0, 2]
    for bad in (0.5, np.nan, np.inf, 1e12, -1e12):
        with pytest.raises(InputError, match="a: holds values that are not whole numbers"):
            whole_numbers(np.array([1.0, bad]), "a")
