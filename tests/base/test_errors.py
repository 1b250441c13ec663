import pytest

from medsegdiff.base.errors import InputError, flag


@pytest.mark.parametrize(
    ("message", "python", "command"),
    [
        ("`image_size` 100: must be even", "image_size 100: must be even", "--image-size 100: must be even"),
        ("a.png: read with `num_classes` 2", "a.png: read with num_classes 2", "a.png: read with --num-classes 2"),
        ("holds none; write `image_size: 256`",) * 3,
        ("a`b_c.png and d`e.png",) * 3,
        ("a\nb\x1b[31m.png: damaged", *(("a\\nb\\x1b[31m.png: damaged",) * 2)),
        ("",) * 3,
    ],
)
def test_options_are_named_by_fields_and_spelled_as_flags(message, python, command):
    assert (str(InputError(message)), InputError(message).spelled(flag)) == (python, command)


def test_an_error_without_a_message_is_empty():
    assert str(InputError()) == ""
