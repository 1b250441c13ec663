import numpy as np
import pytest
from PIL import Image

from medsegdiff.plots.trace import Frame, write_trace


def frames(count, channels=1):
    rng = np.random.default_rng(0)
    disc = np.zeros((channels, 32, 32), np.float32)
    disc[:, 8:24, 8:24] = 1
    return [
        Frame(disc * k / count + rng.standard_normal(disc.shape) * (1 - k / count), disc * k / count)
        for k in range(1, count + 1)
    ]


@pytest.mark.parametrize(("steps", "shown"), [(1, 1), (7, 7), (25, 10)])
def test_a_moment_of_the_animation_for_each_step_and_a_strip_of_ten(tmp_path, steps, shown):
    write_trace(tmp_path, "x", np.full((3, 32, 32), 0.5, np.float32), frames(steps))
    with Image.open(tmp_path / "x_trace.gif") as gif:
        assert getattr(gif, "n_frames", 1) == steps
        width, height = gif.size
    with Image.open(tmp_path / "x_trace.png") as strip:
        assert strip.size == (width // 3 * shown, height * 3)


def test_the_mask_appears(tmp_path):
    write_trace(tmp_path, "x", np.full((1, 32, 32), 0.5, np.float32), frames(4, channels=2))
    with Image.open(tmp_path / "x_trace.png") as strip:
        picture = np.asarray(strip)
    panel = picture.shape[0] // 3
    centre = panel // 2 - 4
    clean = [picture[2 * panel + centre, step * panel + centre, 0] for step in range(4)]
    assert clean == [64, 128, 191, 255]
    corner = [picture[panel + 4 : panel + 40, step * panel + 4 : step * panel + 40].std() for step in range(4)]
    assert corner[0] > corner[1] > corner[2] > corner[3] == 0  # the noise goes
    outlined = [len(np.unique(picture[:panel, step * panel :][:256, :256].reshape(-1, 3), axis=0)) for step in (0, 3)]
    assert outlined[0] == 1 < outlined[1]
