"""Boxes as DICOM objects that refer to a tomosynthesis object: a segmentation, and a structured report.

Segmentation (SEG, PS3.3 A.51): one segment per box, its voxels (`cover_voxels`), frame by frame.
Structured report (SR, PS3.16 TID 1500): one measurement group per box (TID 1411), with a rectangle in every
slice that the box covers. SCOORD counts pixels from the corner of the first one, as boxes do: fractions stay.

Both belong to the image's patient, study and frame of reference. highdicom (extra `viewers`) makes them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from dbtbench.dicom.writing import WRITTEN
from dbtbench.errors import MissingError
from dbtbench.geometry.boxes import cover_voxels
from dbtbench.geometry.views import Boxes
from dbtbench.runtime.files import atomic_path
from dbtbench.version import __version__

PROCEDURE = Code("450566007", "SCT", "Digital breast tomosynthesis")
SOURCE = Code("260753009", "SCT", "Source")
LONGEST = 64
"""Characters of a name, as a segment's label (VR LO) may have."""


def check_highdicom() -> None:
    """Check that the package that makes both is there.

    Raises:
        MissingError: when it is not.
    """
    if find_spec("highdicom") is None:
        raise MissingError(
            "DICOM SR and SEG need the package highdicom, which is not installed",
            "pip install 'dbtbench[viewers]'",
        )


def write_segmentation(path: Path, image: Path, boxes: Boxes, names: Sequence[str]) -> None:
    """Write boxes as a segmentation of an image; atomically. Boxes may overlap.

    Args:
        path: the file.
        image: a Breast Tomosynthesis object whose frames are the slices from 0, as displayed.
        boxes: (n, 6) in voxels of the image, at least one.
        names: of the boxes.

    Raises:
        MissingError: when highdicom is not installed.
    """
    source, grid = _read_image(image)
    from highdicom.seg import Segmentation, SegmentDescription

    masks = np.zeros((*grid, len(boxes)), np.uint8)
    for number, (low, high) in enumerate(zip(*cover_voxels(boxes, grid), strict=True)):
        planes, rows, columns = map(slice, low, high)
        masks[planes, rows, columns, number] = 1
    segments = []
    for number, name in enumerate(map(_clean, names), 1):
        segment = SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="MANUAL",
            tracking_uid=_track(source, number),
            tracking_id=name,
            anatomic_regions=[codes.SCT.Breast],
        )
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", "filled box"
        segments.append(segment)
    with _single_names():
        made = Segmentation(
            source_images=[source],
            pixel_array=masks,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            content_label="BOXES",
            content_description="Boxes of lesions, no outlines",
            manufacturer_model_name="boxes",
            device_serial_number="0",
            software_versions=__version__,
            **_describe(source, "SEG", 2),
        )
    organization = generate_uid(entropy_srcs=[made.SOPInstanceUID, "dimensions"])
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization  # highdicom draws one
    _save(path, made)


def write_report(path: Path, image: Path, boxes: Boxes, names: Sequence[str]) -> None:
    """Write boxes as a structured report on an image; atomically.

    The rectangle of the middle slice is the first of its group: some viewers show the first one only.

    Args:
        path: the file.
        image: a Breast Tomosynthesis object whose frames are the slices from 0, as displayed.
        boxes: (n, 6) in voxels of the image, at least one.
        names: of the boxes.

    Raises:
        MissingError: when highdicom is not installed.
    """
    source, grid = _read_image(image)
    from highdicom import sr

    low, high = cover_voxels(boxes, grid)
    side = codes.SCT.Left if _laterality(source) == "L" else codes.SCT.Right
    groups = []
    for number, (name, box) in enumerate(zip(map(_clean, names), boxes.astype(float), strict=True), 1):
        slices = np.arange(low[number - 1, 0], high[number - 1, 0])
        slices = slices[np.argsort(abs(slices + 0.5 - (box[0] + box[3]) / 2), kind="stable")]
        (y0, x0), (y1, x1) = box[1:3], box[4:]
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        regions = [
            sr.ImageRegion(
                "POLYLINE", corners, sr.SourceImageForRegion.from_source_image(source, [int(k) + 1])
            )
            for k in slices
        ]
        groups.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=_track(source, number), identifier=name),
                referenced_regions=regions,
                finding_type=codes.SCT.Lesion,
                finding_sites=[sr.FindingSite(codes.SCT.Breast, laterality=side)],
            )
        )
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["dbtbench"]), name="dbtbench"
    )
    context = sr.ObserverContext(codes.DCM.Device, observer)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=context),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = content[0]
    report.ContentSequence.insert(-1, _list_image(source))
    with _single_names():
        made = sr.ComprehensiveSR([source], report, is_complete=True, **_describe(source, "SR", 3))
    _save(path, made)


def _read_image(image: Path) -> tuple[Dataset, tuple[int, int, int]]:
    """Read an image's header, and its slices, rows and columns; only where highdicom is there."""
    check_highdicom()
    source = dcmread(image, stop_before_pixels=True)
    return source, (int(source.NumberOfFrames), source.Rows, source.Columns)


def _list_image(source: Dataset) -> Any:
    """Make an image library (TID 1600) of one image; OHIF opens no report without one.

    That of highdicom needs attributes of projections, which a tomosynthesis object does not have.
    """
    from highdicom import sr

    image = sr.ImageContentItem(
        SOURCE, source.SOPClassUID, source.SOPInstanceUID, relationship_type="CONTAINS"
    )
    group = sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type="CONTAINS")
    library = sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type="CONTAINS")
    group.ContentSequence, library.ContentSequence = sr.ContentSequence([image]), sr.ContentSequence([group])
    return library


@contextmanager
def _single_names() -> Iterator[None]:
    """Let a patient's name be one word, of which highdicom warns: it is the identifier."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string .* is unlikely to represent", UserWarning)
        yield


def _describe(source: Dataset, kind: str, series: int) -> dict[str, Any]:
    """UIDs, numbers and times that do not change from call to call."""
    return {
        "series_instance_uid": generate_uid(entropy_srcs=[source.SOPInstanceUID, kind, "series"]),
        "sop_instance_uid": generate_uid(entropy_srcs=[source.SOPInstanceUID, kind, "instance"]),
        "series_number": series,
        "instance_number": 1,
        "manufacturer": "dbtbench",
        "content_date": WRITTEN.date(),
        "content_time": WRITTEN.time(),
        "series_date": WRITTEN.date(),
        "series_time": WRITTEN.time(),
        "series_description": f"{source.SeriesDescription} boxes {kind}"[:LONGEST],
    }


def _track(source: Dataset, number: int) -> str:
    """UID of a box, the same in both objects."""
    return generate_uid(entropy_srcs=[source.SOPInstanceUID, "box", str(number)])


def _laterality(source: Dataset) -> str:
    return str(source.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality)


def _clean(name: str) -> str:
    """Replace what DICOM text of the default character set cannot hold."""
    return re.sub(r"[^ -\[\]-~]", "?", name)[:LONGEST]


def _save(path: Path, dataset: Dataset) -> None:
    """Write a file, with no time that a clock gave: the bytes would differ from call to call."""
    dataset.InstanceCreationDate = dataset.ContentDate
    dataset.InstanceCreationTime = dataset.ContentTime
    for item in dataset.ContributingEquipmentSequence:
        if "ContributionDateTime" in item:
            item.ContributionDateTime = WRITTEN
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
