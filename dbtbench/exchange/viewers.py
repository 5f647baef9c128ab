"""Files that viewers open: NIfTI images, and boxes as label maps, markups of 3D Slicer, DICOM SR and SEG.

A box is half-open in voxels: voxel i reaches from i to i + 1, with its centre at i + 0.5. An affine maps
indices, which count from the centre of the first voxel. So a box's coordinate minus 0.5 is an index.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.spacing import spacing_of
from dbtbench.dicom.boxes import write_report, write_segmentation
from dbtbench.exchange.volumes.nifti import NOMINAL
from dbtbench.geometry.boxes import cover_voxels
from dbtbench.geometry.orientation import Spacing, affine_of, orientation_of
from dbtbench.geometry.views import Boxes
from dbtbench.runtime.files import atomic_path, write_json
from dbtbench.runtime.progress import log

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
"""The schema of markups files, which 3D Slicer reads from version 5.0 on."""
BoxWriter = Callable[[Path, Mapping[str, Any], DBTDataset], None]


def write_nifti(path: Path, array: NDArray[Any], view: str, spacing: Spacing, nominal: bool) -> None:
    """Write columns, rows, slices, with an affine to mm in patient coordinates; atomically.

    Args:
        path: the file, .nii.gz.
        array: (D, H, W).
        view: lcc, lmlo, rcc or rmlo.
        spacing: mm between slices, rows and columns.
        nominal: whether the spacing is; the file then says so.
    """
    from nibabel import Nifti1Image

    image: Any = Nifti1Image(np.ascontiguousarray(array.T), None)  # type: ignore[no-untyped-call]
    affine = affine_of(view, spacing)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    if nominal:
        image.header["descrip"] = NOMINAL
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))  # a time would make the bytes differ


def label_boxes(boxes: Boxes, grid: tuple[int, int, int]) -> NDArray[np.integer[Any]]:
    """Make a label map: 0 outside, k inside the k-th box.

    The voxels are those of `cover_voxels`. A smaller box covers a larger one.

    Args:
        boxes: (n, 6) in voxels of the grid.
        grid: slices, rows, columns.

    Returns:
        (D, H, W), uint8, or uint16 for more than 255 boxes.
    """
    labels = np.zeros(grid, np.min_scalar_type(len(boxes)))
    low, high = cover_voxels(boxes, grid)
    for box in np.argsort(-(high - low).prod(axis=1), kind="stable"):
        labels[tuple(map(slice, low[box], high[box]))] = box + 1
    return labels


def describe_markups(boxes: Boxes, names: Sequence[str], view: str, spacing: Spacing) -> dict[str, Any]:
    """Describe boxes as markups of 3D Slicer: one ROI per box, in mm to the left, posterior and superior.

    Args:
        boxes: (n, 6) in voxels.
        names: of the boxes.
        view: lcc, lmlo, rcc or rmlo.
        spacing: mm between slices, rows and columns.

    Returns:
        A JSON object by `SCHEMA`.
    """
    middle = (boxes[:, :3] + boxes[:, 3:]) / 2 - 0.5
    affine = affine_of(view, spacing)
    centres = (middle[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
    sizes = ((boxes[:, 3:] - boxes[:, :3]) * spacing)[:, ::-1]
    along, _ = orientation_of(view)
    # Slices step against the normal of rows and columns. A box has no front: take the right-handed axes.
    axes = np.stack([*along, np.cross(*along)], axis=1)
    markups = [
        {
            "type": "ROI",
            "name": name,
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "roiType": "Box",
            "center": centre,
            "orientation": _round(axes).reshape(-1).tolist(),
            "size": size,
            "controlPoints": [{"id": "1", "label": name, "position": centre, "positionStatus": "defined"}],
        }
        for name, centre, size in zip(names, _round(centres).tolist(), _round(sizes).tolist(), strict=True)
    ]
    return {"@schema": SCHEMA, "markups": markups}


def _round(mm: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Round to a millionth of a mm, without the sign of zero."""
    return np.asarray(np.round(mm, 6) + 0.0, float)


def _write_label_map(path: Path, case: Mapping[str, Any], dataset: DBTDataset) -> None:
    boxes = dataset.boxes_of(case["case"])
    labels = label_boxes(boxes, dataset.grid)
    hidden = len(boxes) + 1 - len(np.union1d(labels, 0))
    if hidden:
        log.warning(f"{path.name}: other boxes cover {hidden} of {len(boxes)}; markups show all")
    write_nifti(path, labels, case["View"], *spacing_of(case, dataset.grid))


def _write_markups(path: Path, case: Mapping[str, Any], dataset: DBTDataset) -> None:
    spacing, _ = spacing_of(case, dataset.grid)
    boxes, names = dataset.boxes_of(case["case"]), _name_boxes(case, dataset)
    write_json(path, describe_markups(boxes, names, case["View"], spacing))


def _write_annotations(write: Callable[[Path, Path, Boxes, Sequence[str]], None]) -> BoxWriter:
    """Make a writer of a DICOM object that refers to the volume's own, which lies beside it."""

    def write_beside(path: Path, case: Mapping[str, Any], dataset: DBTDataset) -> None:
        image = path.with_name(path.name.rpartition("-")[0] + ".dcm")
        write(path, image, dataset.boxes_of(case["case"]), _name_boxes(case, dataset))

    return write_beside


def _name_boxes(case: Mapping[str, Any], dataset: DBTDataset) -> list[str]:
    rows = dataset.boxes[dataset.boxes["case"] == case["case"]]
    return [f"{number} {class_}" for number, class_ in enumerate(rows["Class"], 1)]


class BoxFile(NamedTuple):
    """A kind of file of boxes.

    Attributes:
        end: of the file's name.
        write: writes one.
        empty: whether a volume without boxes has one: a label map is a volume of a set, too.
        dicom: whether it refers to the volume's DICOM object.
    """

    end: str
    write: BoxWriter
    empty: bool = False
    dicom: bool = False


BOX_FILES = {
    "labelmap": BoxFile("-boxes.nii.gz", _write_label_map, empty=True),
    "markups": BoxFile(".mrk.json", _write_markups),
    "sr": BoxFile("-sr.dcm", _write_annotations(write_report), dicom=True),
    "seg": BoxFile("-seg.dcm", _write_annotations(write_segmentation), dicom=True),
}
