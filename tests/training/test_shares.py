import numpy as np
import pytest

from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.runtime import exchange
from medsegdiff.training.shares import check_shares, rows_of, whole


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 2)


def run(size=256, **training):
    return RunConfig(NetworkConfig(image_size=size), training=TrainingConfig(**training))


def test_one_process_has_all_rows_in_order():
    for microbatch in (-1, 2, 4, 100):
        np.testing.assert_array_equal(rows_of(0, 6, microbatch), range(6))


@pytest.mark.parametrize(
    ("microbatch", "first", "second"),
    [(-1, [0, 1, 2], [3, 4, 5]), (2, [0, 2, 4], [1, 3, 5]), (4, [0, 1, 4], [2, 3, 5]), (8, [0, 1, 2], [3, 4, 5])],
)
def test_each_micro_batch_is_cut_into_equal_parts(two, microbatch, first, second):
    np.testing.assert_array_equal(rows_of(0, 6, microbatch), first)
    np.testing.assert_array_equal(rows_of(1, 6, microbatch), second)


@pytest.mark.parametrize("microbatch", [-1, 2, 4])
def test_values_come_back_in_the_order_of_the_batch(two, monkeypatch, microbatch):
    batch = np.arange(12.0).reshape(2, 6)
    parts = np.stack([batch[:, rows_of(process, 6, microbatch)] for process in range(2)])
    monkeypatch.setattr(exchange, "gather", lambda values: parts)
    np.testing.assert_array_equal(whole(parts[0], microbatch), batch)


def test_a_batch_that_cannot_be_shared_is_refused(two):
    check_shares(run(batch_size=6, microbatch=4))
    with pytest.raises(InputError, match="batch_size 3: must be a multiple of the 2 processes"):
        check_shares(run(batch_size=3))
    with pytest.raises(InputError, match="microbatch 3: must be a multiple of the 2 processes"):
        check_shares(run(batch_size=6, microbatch=3))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 1}, "batch_size 1: batch norm"),
        ({"batch_size": 1, "microbatch": 4}, "batch_size 1: batch norm"),
        ({"batch_size": 8, "microbatch": 1}, "microbatch 1: batch norm"),
        ({"batch_size": 5, "microbatch": 2}, "batch_size 5, microbatch 2: the last part is one image: batch norm"),
    ],
)
def test_one_image_at_a_time_is_refused_where_a_map_is_one_pixel(options, complaint):
    with pytest.raises(InputError, match=rf"^{complaint} cannot train on one image of 32 x 32 pixels .* or image_"):
        check_shares(run(32, **options))
    check_shares(run(64, **options))


def test_images_of_all_processes_make_up_a_batch_norm(two):
    check_shares(run(32, batch_size=2))
    check_shares(run(32, batch_size=6, microbatch=4))
    with pytest.raises(InputError, match="batch_size 1: must be a multiple of the 2 processes"):
        check_shares(run(32, batch_size=1))
