"""Planted copies: training volumes and lesions, changed in known ways, that an audit must find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none

from dbtbench.geometry.views import Boxes, Volume, mirror_boxes
from dbtbench.metrics.mask import breast_mask

Random = np.random.Generator
Change = Callable[[Volume, Volume, Random], Volume]
"""`change(volume, other, rng)`: change a volume (D, H, W); `other` is another training volume."""

SHIFT = 4
"""Largest shift in the plane, in voxels."""
DEGREES = 3.0
GAMMA = (0.85, 1.15)
NOISE = 0.02
BLUR = (0.5, 1.0)
AUGMENT_DEGREES, AUGMENT_SCALE, AUGMENT_SHIFT = 8.0, 0.08, 0.04
AIR = 8 / 256
"""Intensity below which a voxel is air, as for `air_mode_mass`."""


def copy_exactly(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Change nothing."""
    return volume


def mirror_columns(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Mirror from left to right."""
    return volume[:, :, ::-1]


def mirror_slices(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Mirror in depth."""
    return volume[::-1]


def shift(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Shift by 1 to 4 voxels along the rows, the columns or both, and by up to one slice.

    The border is repeated into what the shift leaves empty.
    """
    steps = rng.integers(1, SHIFT + 1, 2) * rng.choice([-1, 1], 2)
    steps[rng.integers(2)] *= rng.integers(2)
    return np.asarray(scipy.ndimage.shift(volume, (rng.integers(-1, 2), *steps), order=0, mode="nearest"))


def rotate(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Rotate by 3° in the plane, to either side."""
    angle = DEGREES * rng.choice([-1, 1])
    turned = scipy.ndimage.rotate(volume, angle, (1, 2), reshape=False, order=1, mode="nearest")
    return np.asarray(turned, np.float32)


def change_gamma(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Raise the intensities to a power between 0.85 and 1.15."""
    return np.asarray(volume ** rng.uniform(*GAMMA), np.float32)


def add_noise(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Add Gaussian noise of 0.02 where there is tissue."""
    noise = NOISE * rng.standard_normal(volume.shape)
    return np.clip(volume + noise * (volume > AIR), 0, 1).astype(np.float32)


def blur(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Blur in the plane by 0.5 to 1 voxels."""
    width = rng.uniform(*BLUR)
    return np.asarray(scipy.ndimage.gaussian_filter(volume, (0, width, width)))


def replace_slice(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Replace one slice by another volume's."""
    changed = volume.copy()
    z = rng.integers(len(volume))
    changed[z] = other[z]
    return changed


def augment(volume: Volume, other: Volume, rng: Random) -> Volume:
    """Rotate, scale, shift, shade, blur and add noise with torchio, as augmentation for a training does."""
    import torch
    import torchio as tio

    rows, columns = volume.shape[1:]
    factor = 1 + rng.uniform(-AUGMENT_SCALE, AUGMENT_SCALE)
    move = rng.uniform(-AUGMENT_SHIFT, AUGMENT_SHIFT, 2) * (columns, rows)
    affine = tio.Affine(
        scales=(factor, factor, 1),
        degrees=(0, 0, rng.uniform(-AUGMENT_DEGREES, AUGMENT_DEGREES)),
        translation=(*move, 0),
    )
    # What comes in over the border is the border itself, as in `shift`: the chest wall stays there.
    x, y = columns // 3, rows // 3
    padded = np.pad(volume, ((0, 0), (y, y), (x, x)), mode="edge")
    tensor = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 1, 0)[None]))
    with torch.random.fork_rng(devices=[]):  # torchio draws from the global random numbers
        torch.manual_seed(int(rng.integers(2**31)))
        moved = affine(tio.ScalarImage(tensor=tensor))  # type: ignore[no-untyped-call]
    carried = moved.numpy()[0].transpose(2, 1, 0)[:, y : y + rows, x : x + columns]
    shaded = change_gamma(np.clip(carried, 0, 1), other, rng)
    return add_noise(blur(shaded, other, rng), other, rng)


KINDS: dict[str, Change] = {
    "exact": copy_exactly,
    "mirrored": mirror_columns,
    "mirrored_depth": mirror_slices,
    "shifted": shift,
    "rotated": rotate,
    "gamma": change_gamma,
    "noise": add_noise,
    "blur": blur,
    "slice_replaced": replace_slice,
    "augmented": augment,
}
"""Ways to change a copy of a whole volume, by name."""
MOVED = ("exact", "mirrored", "mirrored_depth", "shifted")
"""Kinds of which at least 95 % must be found; of the others 80 %."""


LESION_KINDS = ("pasted", "pasted_mirrored", "pasted_noise", "pasted_blur")
"""Copies of a lesion: pasted into another breast as it is, or with that breast changed afterwards."""
LESION_KINDS_NEEDED = LESION_KINDS[:3]
"""Kinds of which 80 % must be found. A blur by half a voxel leaves little of a lesion of five."""
FROM_OUTLINE = 3
"""Voxels between the outline of a breast and the centre of what is pasted."""


def plant_lesion(host: Volume, donor: Volume, box: Boxes, rng: Random) -> dict[str, tuple[Volume, Boxes]]:
    """Plant a lesion in another breast of the same side, at a random place, in the slices that it comes from.

    Args:
        host: (D, H, W), the breast.
        donor: (D, H, W), where the lesion is.
        box: (6,) of the lesion in `donor`.
        rng: random numbers.

    Returns:
        Volume and box (1, 6) by kind; nothing where the host has no room.
    """
    inside = scipy.ndimage.binary_erosion(breast_mask(host[None, None])[0, 0, 0], iterations=FROM_OUTLINE)
    places = np.argwhere(inside)
    if not len(places):
        return {}
    row, column = places[rng.integers(len(places))]
    pasted, moved = paste_lesion(host, donor, box, (int(box[0] + box[3]) // 2, int(row), int(column)))
    return {
        "pasted": (pasted, moved[None]),
        "pasted_mirrored": (pasted[:, :, ::-1], mirror_boxes(moved[None], host.shape[2])),
        "pasted_noise": (add_noise(pasted, host, rng), moved[None]),
        "pasted_blur": (blur(pasted, host, rng), moved[None]),
    }


def paste_lesion(
    host: Volume, donor: Volume, box: Boxes, centre: tuple[int, int, int]
) -> tuple[Volume, Boxes]:
    """Paste a lesion into another breast, blended over its border.

    Args:
        host: (D, H, W), the breast.
        donor: (D, H, W), where the lesion is.
        box: (6,) `[z0, y0, x0, z1, y1, x1]` of the lesion in `donor`.
        centre: voxel of `host` where the lesion's centre will be.

    Returns:
        The changed host, and the lesion's box in it (6,), clipped to it.
    """
    low, high = np.floor(box[:3]).astype(int), np.ceil(box[3:]).astype(int)
    middle = (low + high) // 2
    offsets = np.indices(host.shape).reshape(3, -1).T - centre
    # 1 inside the lesion's ellipsoid, and down to 0 over half its axes around it.
    axes = np.maximum((high - low) / 2, 1)
    distance = np.sqrt(((offsets / axes) ** 2).sum(axis=1))
    weight = np.clip((1.5 - distance) / 0.5, 0, 1)
    source = offsets + middle
    seen = (weight > 0) & (source >= 0).all(axis=1) & (source < donor.shape).all(axis=1)
    target = tuple((offsets[seen] + centre).T)
    taken, kept, share = donor[tuple(source[seen].T)], host[target], weight[seen]
    rim = share < 1
    # The surroundings of the lesion get the brightness of its new place.
    level = float(kept[rim].mean() - taken[rim].mean()) if rim.any() else 0.0
    pasted = host.copy()
    pasted[target] = np.clip(share * (taken + level) + (1 - share) * kept, 0, 1)
    moved = np.tile(np.array(centre) - middle, 2) + box
    return pasted, np.clip(moved, 0, np.tile(host.shape, 2)).astype(np.float32)
