"""The placebo: patches of normal tissue in place of lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dbtbench.errors import UsageError
from dbtbench.lesions.library import Lesion, Library, cut_out

CANDIDATES = 8
"""Normal volumes that a patch is sought in."""


def replace_by_normal(library: Library, number: int, margin: float) -> Lesion:
    """Replace a lesion's signal by that of normal tissue of another patient, at its own place or near it.

    The flattest of a few patches is taken: a bright one would be a lesion without a box. What else is known
    of the lesion stays, so that the placebo is pasted where the lesion would be.

    Args:
        library: the lesions.
        number: of the lesion.
        margin: width of the feather, in half-axes.

    Raises:
        UsageError: when no lesion-free volume has such a place.
    """
    lesion, hosts, rng = library.lesions[number], library.hosts, np.random.default_rng(number)
    others = hosts.normal & (hosts.views == lesion.projection) & (hosts.cases["PatientID"] != lesion.patient)
    patches = list[Lesion]()
    for case in rng.permutation(hosts.cases.index[others])[:CANDIDATES]:
        background, _ = hosts.read(int(case))
        centre = background.find_place(lesion.centre, lesion.half)
        if centre is None:
            continue
        move = np.round(centre - lesion.centre)  # the patch has whole voxels, as the lesion's has
        box = lesion.box + np.array([0, *move, 0, *move])
        patch = cut_out(background, box[None].astype(np.float32), 0, margin)
        patches += [patch] if patch else []
    if not patches:
        raise UsageError(
            f"{library.train.name} has no place in normal tissue for the lesion of patient {lesion.patient}",
            "import more normal cases, or use paste without placebo",
        )
    flat = min(patches, key=lambda patch: abs(patch.contrast))
    return replace(flat, projection=lesion.projection, patient=lesion.patient, aspect=lesion.aspect)
