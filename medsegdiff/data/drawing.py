"""Drawing dermoscopy-like images with exact masks."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# RGB in [0, 1]. Of the pigments: what part of the light comes back through a layer, common to rare.
_SKINS = np.array([(0.90, 0.75, 0.69), (0.85, 0.81, 0.77), (0.82, 0.68, 0.54), (0.78, 0.56, 0.46)])
_PIGMENTS = np.array([(0.72, 0.46, 0.31), (0.55, 0.36, 0.27), (0.78, 0.45, 0.42), (0.36, 0.28, 0.27)])
_VEIL = np.array((0.40, 0.42, 0.50))  # blue-grey, of pigment deep in the skin
_REGRESSION = np.array((0.84, 0.70, 0.66))  # scar-like, where pigment has gone
_CORE = np.array((0.46, 0.36, 0.36))  # pigment, of the lesion's dark core


def draw(rng: np.random.Generator, size: int = 192, num_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draw one lesion on skin, with a dark core if there are to be 3 classes.

    Returns:
        The image, uint8 (size, size, 3) RGB, and its mask, uint8 (size, size): {0, 255} with 2 classes, else
        class indices, 0 of skin, 1 of the lesion and 2 of its core.
    """
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    distance = _lesion_distance(rng, x, y)
    picture = _skin(rng, size)
    picture = _lesion(rng, distance, picture)
    lesion = distance < 1
    if num_classes == 2:
        mask = np.where(lesion, 255, 0).astype(np.uint8)
    else:
        from_core = _core_distance(rng, distance)
        picture = _core(rng, from_core, picture)
        mask = lesion.astype(np.uint8) + (lesion & (from_core < 1))
    picture = _gel(rng, picture, x, y)
    picture = _hairs(rng, picture)
    picture = _ruler(rng, picture)
    picture *= _light(rng, x, y)[..., None]
    picture += rng.normal(0, rng.uniform(0.004, 0.012), picture.shape)
    image = Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7) * size / 192))
    return np.array(image), mask


def _noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 3) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, (size, size): `cells` bumps across, and finer ones."""
    total = np.zeros((size, size))
    for octave in range(octaves):
        # A random part of a grid at least as fine as asked for: no feature sits on a lattice.
        cells_here = min(cells * 2**octave, size) + 3
        grid = Image.fromarray(rng.normal(size=(cells_here, cells_here)).astype(np.float32))
        left, top = rng.uniform(0, 2, 2)
        box = (left, top, left + cells_here - 2, top + cells_here - 2)
        total += np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC, box)) / 2**octave
    return (total - total.mean()) / total.std()


def _step(value: np.ndarray, edge: float, width: float) -> np.ndarray:
    """0 below `edge`, 1 above, smooth over `width`."""
    t = np.clip((value - edge) / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _lesion_distance(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 at the lesion's centre, 1 at its irregular border: (S, S)."""
    size = len(x)
    radius = np.exp(rng.uniform(np.log(0.26), np.log(0.68)))
    reach = max(0.0, 0.55 - 0.6 * radius)
    centre_x, centre_y = rng.uniform(-reach, reach, 2)
    tilt, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.5) ** 0.5
    dx, dy = x - centre_x, y - centre_y
    along = (dx * np.cos(tilt) + dy * np.sin(tilt)) / stretch
    across = (dy * np.cos(tilt) - dx * np.sin(tilt)) * stretch
    angle = np.arctan2(across, along)
    irregularity = rng.uniform(0.05, 0.22)
    border = np.ones_like(x)
    for order in range(2, 8):
        border += irregularity * rng.normal() / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    distance = np.hypot(along, across) / (radius * np.clip(border, 0.5, None))
    # Ragged at the border only: far from it the noise would cut holes and islands.
    ragged = np.exp(-(((distance - 1) / 0.3) ** 2)) * irregularity
    return distance + ragged * (0.35 * _noise(rng, size, 7) + 0.2 * _noise(rng, size, 20, 2))


def _skin(rng: np.random.Generator, size: int) -> np.ndarray:
    """Healthy skin, (S, S, 3)."""
    weights = rng.dirichlet(np.full(len(_SKINS), 0.5))
    colour = weights @ _SKINS * rng.normal(1, (0.02, 0.025, 0.05))
    light = 0.03 * _noise(rng, size, 2) + 0.012 * _noise(rng, size, 24)
    # Blood makes patches redder: green and blue fall together.
    flush = 0.022 * _noise(rng, size, 4)
    furrows = rng.uniform(0, 0.03) * np.exp(-((_noise(rng, size, 18, 1) / 0.2) ** 2))
    return colour + (light + furrows)[..., None] - flush[..., None] * np.array((0.1, 1, 0.8))


def _lesion(rng: np.random.Generator, distance: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """The skin, (S, S, 3), seen through the pigment of the lesion."""
    size = len(distance)
    inside = 1 / (1 + np.exp((distance - 1) / rng.uniform(0.02, 0.09)))
    # Light decays exponentially with the amount of pigment, so layers add up as in real tissue.
    amount = 1 + 0.22 * _noise(rng, size, 4) + 0.14 * _noise(rng, size, 22, 2)
    amount += rng.uniform(-0.1, 0.5) * (0.6 - distance)
    if rng.random() < 0.6:  # pigment network: fine dark meshes, clearest towards the border
        meshes = np.exp(-((_noise(rng, size, int(rng.integers(30, 44)), 1) / 0.5) ** 2))
        amount += rng.uniform(0.15, 0.5) * (meshes - 0.4) * _step(distance, rng.uniform(0.1, 0.5), 0.6)
    if rng.random() < 0.35:  # globules
        amount += 0.8 * _step(_noise(rng, size, int(rng.integers(24, 36)), 1), 1.5, 0.8)
    if rng.random() < 0.55:  # blotches
        amount += rng.uniform(0.5, 1.5) * _step(_noise(rng, size, 4, 4), rng.uniform(0.6, 1.4), 1.2)
    first, second = np.log(_PIGMENTS[rng.choice(len(_PIGMENTS), 2, p=(0.4, 0.25, 0.2, 0.15))])
    blend = _step(_noise(rng, size, 3, 4) + rng.uniform(-1, 1) + rng.uniform(-1, 1) * distance, 0, 3)
    pigment = first + blend[..., None] * (second - first)
    lesion = skin * np.exp(pigment * (np.clip(amount, 0.45, 3) * inside)[..., None])
    if rng.random() < 0.25:
        cover = _step(1 - distance, 0.3, 0.5) * _step(_noise(rng, size, 3, 4), 0.6, 1.5)
        lesion += rng.uniform(0.4, 0.7) * cover[..., None] * (_VEIL - lesion)
    if rng.random() < 0.25:
        cover = inside * _step(_noise(rng, size, 4, 4), rng.uniform(0.8, 1.4), 1.5)
        lesion += rng.uniform(0.3, 0.6) * cover[..., None] * (_REGRESSION - lesion)
    return lesion


def _core_distance(rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    """0 near the lesion's centre, 1 at the irregular border of its core: (S, S)."""
    size = len(distance)
    # The noise fades towards the centre, so that every core is there, in one piece and inside the lesion.
    bumps = rng.uniform(0.1, 0.25) * _noise(rng, size, 3, 2) + rng.uniform(0.02, 0.06) * _noise(rng, size, 12, 2)
    return distance / rng.uniform(0.4, 0.65) * (1 + np.clip(bumps, -0.3, 0.3))


def _core(rng: np.random.Generator, from_core: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """The lesion, (S, S, 3), seen through the denser pigment of its core."""
    inside = 1 - _step(from_core, 1, rng.uniform(0.08, 0.25))
    amount = np.clip(rng.uniform(0.85, 1.3) + 0.15 * _noise(rng, len(inside), 8), 0.5, 2)
    return lesion * np.exp(np.log(_CORE) * (amount * inside)[..., None])


def _gel(rng: np.random.Generator, picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bubbles of the immersion gel, and highlights where the light is mirrored; in some pictures."""
    if rng.random() < 0.25:
        for _ in range(int(rng.integers(1, 9))):
            centre_x, centre_y = rng.uniform(-0.95, 0.95, 2)
            radius = rng.uniform(0.02, 0.09)
            offset_x, offset_y = (x - centre_x) / radius, (y - centre_y) / radius
            ring = np.exp(-(((np.hypot(offset_x, offset_y) - 1) / 0.18) ** 2))
            glint = np.exp(-((offset_x + 0.4) ** 2 + (offset_y + 0.4) ** 2) / 0.06)
            lit = 0.5 - 0.5 * (offset_x + offset_y) / (1 + np.hypot(offset_x, offset_y))
            picture = picture + (0.22 * ring * lit + 0.45 * glint - 0.10 * ring * (1 - lit))[..., None]
    if rng.random() < 0.3:
        sparkle = _step(_noise(rng, len(x), 40, 1), 2.6, 0.5) * _step(_noise(rng, len(x), 3, 1), 0.8, 1)
        picture = picture + 0.5 * sparkle[..., None]
    return picture


def _hairs(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Curved, tapered hairs anywhere in the frame; none in two fifths of the pictures."""
    size, fine = len(picture), 4
    count = int(rng.choice((0, rng.integers(1, 7), rng.integers(7, 24)), p=(0.4, 0.4, 0.2)))
    if count == 0:
        return picture
    canvas = Image.new("L", (size * fine, size * fine))
    pen = ImageDraw.Draw(canvas)
    thickness = rng.uniform(0.0025, 0.006)
    lie = rng.uniform(0, 2 * np.pi)  # hairs of one place grow roughly the same way
    t = np.linspace(0, 1, 32)[:, None]
    for _ in range(count):
        heading = lie + rng.normal(0, 0.6)
        forward = np.array((np.cos(heading), np.sin(heading)))
        side = np.array((-forward[1], forward[0]))
        root, length = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.3, 1.1)
        bend, sway = rng.normal(0, 0.25), rng.normal(0, 0.08)
        path = root + length * ((t - 0.4) * forward + (bend * (t - 0.4) ** 2 + sway * np.sin(5 * t)) * side)
        along = np.gradient(path, axis=0)
        normal = np.stack((-along[:, 1], along[:, 0]), 1) / np.hypot(along[:, :1], along[:, 1:])
        half = 0.5 * thickness * rng.uniform(0.6, 1.3) * (1 - 0.85 * t**1.5)
        ribbon = np.concatenate((path + half * normal, (path - half * normal)[::-1])) * size * fine
        pen.polygon([tuple(point) for point in ribbon], fill=int(rng.uniform(150, 255)))
    cover = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), float)[..., None] / 255
    shadow = np.asarray(canvas.resize((size, size), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1.5)))
    colour = np.array((0.16, 0.11, 0.09)) if rng.random() < 0.85 else np.array((0.62, 0.48, 0.34))
    picture = picture * (1 - 0.3 * np.roll(shadow, (1, 1), (0, 1))[..., None] / 255.0)
    return picture + 0.9 * cover * (colour - picture)


def _ruler(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The millimetre marks that some dermatoscopes have along one edge."""
    if rng.random() >= 0.15:
        return picture
    size, fine = len(picture), 4
    canvas = Image.new("L", (size * fine, size * fine))
    pen = ImageDraw.Draw(canvas)
    spacing, edge, width = rng.uniform(0.035, 0.06), rng.uniform(0.90, 0.96), 0.006
    for mark in range(int(0.9 / spacing)):
        position = 0.05 + mark * spacing
        top = edge - (0.06 if mark % 5 == 0 else 0.035)
        pen.rectangle([size * fine * v for v in (position, top, position + width, edge)], fill=255)
    cover = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), float) / 255
    cover = np.rot90(cover, int(rng.integers(4)))[..., None]
    return picture + rng.uniform(0.5, 0.9) * cover * (0.12 - picture)


def _light(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much light reaches each pixel, (S, S) in [0, 1.2]: uneven, and dark outside the round lens."""
    slope_x, slope_y = rng.normal(0, 0.06, 2)
    centre_x, centre_y = rng.normal(0, 0.05, 2)
    from_axis = np.hypot(x - centre_x, y - centre_y)
    light = rng.uniform(0.88, 1.06) + slope_x * x + slope_y * y - rng.uniform(0, 0.12) * from_axis**2
    kind = rng.random()
    if kind < 0.3:  # soft dark corners
        light *= 1 - rng.uniform(0.4, 0.95) * _step(from_axis, rng.uniform(1.15, 1.4), rng.uniform(0.4, 0.8))
    elif kind < 0.45:  # the tube's own rim
        light *= 1 - 0.96 * _step(from_axis, rng.uniform(1.0, 1.25), 0.05)
    return np.clip(light, 0, 1.2)
