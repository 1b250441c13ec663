from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

import numpy as np
import pytest

from medsegdiff.base.bounds import bounded, check_bounds, check_fields
from medsegdiff.base.errors import InputError


@dataclass(frozen=True)
class Section:
    count: int = bounded(3, 1, 10)
    share: float = bounded(0.5, 0, 1)
    name: str = ""
    wanted: bool = False
    maybe: Optional[int] = bounded(None, 0, 5)
    kind: Literal["", "a", "b"] = ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, "count 0: must be at least 1"),
        ({"count": 10**8}, "count 100000000: must be at most 10"),
        ({"count": 10**5000}, r"count beyond 10\^15: must be at most 10"),
        ({"count": 1.5}, "count 1.5: must be a whole number"),
        ({"count": True}, "count True: must be a whole number"),
        ({"count": "7"}, "count 7: must be a whole number"),
        ({"count": None}, "count None: must be a whole number"),
        ({"share": -1}, "share -1: must not be negative"),
        ({"share": float("nan")}, "share nan: must be finite"),
        ({"share": float("inf")}, "share inf: must be finite"),
        ({"share": [1]}, r"share \[1\]: must be a number"),
        ({"name": 16}, "name 16: must be text; in YAML put it in quotes"),
        ({"wanted": "yes"}, "wanted yes: must be true or false"),
        ({"maybe": 6}, "maybe 6: must be at most 5"),
        ({"maybe": "5"}, "maybe 5: must be a whole number"),
        ({"kind": "c"}, "kind c: must be one of a, b"),
        ({"kind": ["a"]}, r"kind \['a'\]: must be one of a, b"),
    ],
)
def test_a_value_of_another_type_or_out_of_bounds_is_named(values, words):
    with pytest.raises(InputError, match=f"^{words}$"):
        check_fields(Section(**values))


def test_values_within_their_bounds_pass():
    for values in ({}, {"count": 10, "share": 1, "maybe": 5}, {"count": 1, "share": 0.0, "name": "a"}):
        check_fields(Section(**values))
    check_bounds("size", 4, 4, 4)


def test_numbers_of_numpy_become_python_s():
    section = Section(count=np.int64(4), share=np.float32(0.5), wanted=np.bool_(True))
    check_fields(section)
    assert [type(value) for value in (section.count, section.share, section.wanted)] == [int, float, bool]
