import numpy as np
import pytest

from medsegdiff.plots.overview import Row
from medsegdiff.plots.palette import MAX_STD


@pytest.fixture
def row():
    y, x = np.mgrid[:60, :80]
    disc = ((y - 30) ** 2 + (x - 40) ** 2 < 15**2).astype(np.float32)
    return Row(
        id="ISIC_1",
        image=np.full((60, 80, 3), 100, np.uint8),
        probability=disc,
        truth=np.roll(disc, 12, axis=1) > 0,
        members=[disc, 1 - disc],
        std=disc * MAX_STD,
        dice=0.5,
    )
