"""The writer of Breast Tomosynthesis Image Storage, the multi-frame object that scanners send."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import JPEG2000LosslessEncoder
from pydicom.sequence import Sequence
from pydicom.uid import BreastTomosynthesisImageStorage, JPEG2000Lossless, generate_uid

from dbtbench.errors import UsageError
from dbtbench.geometry.orientation import orientation_of
from dbtbench.geometry.views import laterality, projection
from dbtbench.runtime.files import atomic_path
from dbtbench.version import __version__

BITS_STORED = 10
SMALLEST = 32
"""Rows and columns that the encoder's six resolutions need."""
WRITTEN = datetime(2020, 1, 1, 12)
"""The date and time in every file: a real clock would make each file's bytes different."""
VIEW_CODES = {"cc": ("399162004", "cranio-caudal"), "mlo": ("399368009", "medio-lateral oblique")}
FRAME_TYPE: dict[str, Any] = {
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "TOMOSYNTHESIS",
}
IMAGE_TYPE = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
RESAMPLED = ("113085", "DCM", "Spatial resampling")
"""Code of PS3.16 CID 7203, Image Derivation."""
DRAWN = ("SYNTHETIC", "99DBTBENCH", "Drawn by a generative model")
"""A private code: CID 7203 may be extended, and has none for this."""


@dataclass(frozen=True)
class Derivation:
    """The source of a derived volume.

    Attributes:
        description: in words, at most 1024 characters.
        code: value, coding scheme and meaning: `RESAMPLED` or `DRAWN`.
    """

    description: str
    code: tuple[str, str, str]


def write_tomosynthesis(
    path: Path,
    frames: NDArray[np.uint16],
    *,
    view: str,
    patient_id: str,
    study_id: str,
    pixel_mm: tuple[float, float],
    slice_mm: float,
    window: tuple[float, float],
    uid_seed: str,
    rotated: bool = False,
    manufacturer: str = "dbtbench",
    model: str = "synthetic volume",
    series_description: str = "synthetic breast tomosynthesis",
    derivation: Derivation | None = None,
) -> None:
    """Write one volume as a file of its own series, JPEG 2000 lossless, 10 of 16 bits; atomically.

    The same arguments always give the same bytes. The object follows PS3.3 A.55, with the attributes that
    the module tables require and no optional ones but the window.

    Args:
        path: the file; its folders are made.
        frames: (slices, rows, columns) as displayed, at most 1023; a left breast lies at the left edge and
            slice 0 on the breast support.
        view: lcc, lmlo, rcc or rmlo.
        patient_id: PatientID and PatientName.
        study_id: StudyID; with `patient_id` and `uid_seed` it decides StudyInstanceUID.
        pixel_mm: distance between rows, between columns.
        slice_mm: distance between slices.
        window: centre and width.
        uid_seed: text that gives the volumes of different collections different UIDs.
        rotated: store the frames rotated by 180° in the plane, as some of BCS-DBT are; the orientation in the
            header is rotated too.
        manufacturer: of the scanner, or of the program in its place.
        model: of the scanner, or of the program in its place.
        series_description: free text.
        derivation: its source; the window is then exact (LINEAR_EXACT). None for a phantom.

    Raises:
        UsageError: when the frames are not such an array.
    """
    _check_frames(path.name, frames)
    names = [uid_seed, patient_id, study_id]
    dataset = Dataset()
    _describe(dataset, names, view)
    dataset.PatientID = dataset.PatientName = patient_id
    dataset.StudyID, dataset.SeriesDescription = study_id, series_description
    dataset.Manufacturer, dataset.ManufacturerModelName = manufacturer, model
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    orientation, step = orientation_of(view)
    corner = np.zeros(3)
    if rotated:
        frames, corner, orientation = _rotate(frames, orientation, pixel_mm)
    _add_shared_groups(dataset, orientation, view, pixel_mm, slice_mm, window)
    _add_frame_groups(dataset, [corner + k * slice_mm * step for k in range(len(frames))], names)
    if derivation is not None:
        _add_derivation(dataset, derivation)
    _save(path, dataset, frames)


def _check_frames(name: str, frames: NDArray[np.uint16]) -> None:
    shaped = frames.ndim == 3 and len(frames) > 0 and min(frames.shape[1:]) >= SMALLEST
    if not shaped or frames.dtype != np.uint16:
        raise UsageError(
            f"{name}: frames must be (slices, rows, columns) uint16, "
            f"each at least {SMALLEST} × {SMALLEST} pixels, not {frames.shape} {frames.dtype}",
            "choose a larger grid",
        )
    if frames.max() >= 2**BITS_STORED:
        raise UsageError(
            f"{name}: frames must be below {2**BITS_STORED}, not {frames.max()}", "scale to 10 bits first"
        )


def _describe(dataset: Dataset, names: list[str], view: str) -> None:
    """Set the attributes that are the same for all volumes, or follow from the view."""
    date, time = WRITTEN.strftime("%Y%m%d"), WRITTEN.strftime("%H%M%S")
    for kind in ("Study", "Series", "Content"):
        setattr(dataset, f"{kind}Date", date)
        setattr(dataset, f"{kind}Time", time)
    dataset.SOPClassUID = BreastTomosynthesisImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*names, view, "instance"])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[*names, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*names, view, "series"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[*names, view, "frame of reference"])
    _set(
        dataset,
        PatientBirthDate="",
        PatientSex="F",
        PatientIdentityRemoved="YES",
        DeidentificationMethod="synthetic, no patient",
        AccessionNumber="",
        ReferringPhysicianName="",
        Modality="MG",
        SeriesNumber=1,
        InstanceNumber=1,
        PositionReferenceIndicator="",
        DeviceSerialNumber="0",
        SoftwareVersions=__version__,
        ImageType=IMAGE_TYPE,
        ContentQualification="RESEARCH",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        PresentationLUTShape="IDENTITY",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=BITS_STORED,
        HighBit=BITS_STORED - 1,
        PixelRepresentation=0,
        AcquisitionContextSequence=Sequence(),
        BreastImplantPresent="NO",
        PartialView="NO",
        **FRAME_TYPE,
    )
    code, meaning = VIEW_CODES[projection(view)]
    dataset.ViewCodeSequence = _code(code, "SCT", meaning)
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()


def _rotate(
    frames: NDArray[np.uint16], orientation: NDArray[np.float64], pixel_mm: tuple[float, float]
) -> tuple[NDArray[np.uint16], NDArray[np.float64], NDArray[np.float64]]:
    """Rotate frames by 180°; return them, the place of their first pixel, and the rotated directions."""
    last = np.array([(frames.shape[2] - 1) * pixel_mm[1], (frames.shape[1] - 1) * pixel_mm[0]])
    return frames[:, ::-1, ::-1], last @ orientation, -orientation


def _add_shared_groups(
    dataset: Dataset,
    orientation: NDArray[np.float64],
    view: str,
    pixel_mm: tuple[float, float],
    slice_mm: float,
    window: tuple[float, float],
) -> None:
    """Add the functional groups that all frames share."""
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(
        PixelSpacing=_decimals(pixel_mm),
        SliceThickness=_decimals([slice_mm])[0],
        SpacingBetweenSlices=_decimals([slice_mm])[0],
    )
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=_decimals(orientation.reshape(-1)))
    shared.FrameAnatomySequence = _item(
        FrameLaterality=laterality(view).upper(), AnatomicRegionSequence=_code("76752008", "SCT", "Breast")
    )
    centre, width = _decimals(window)
    shared.FrameVOILUTSequence = _item(
        WindowCenter=centre,
        WindowWidth=width,
        WindowCenterWidthExplanation="NORMAL",
        VOILUTFunction="LINEAR",
    )
    shared.PixelValueTransformationSequence = _item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])


def _add_derivation(dataset: Dataset, derivation: Derivation) -> None:
    """Add the volume's source, in the functional group that the IOD has for it (PS3.3 C.7.6.16.2.6).

    dciodvfy knows no DerivationDescription outside of it. SyntheticData (0008,001C), in the standard since
    2021, is an error to it. So a synthetic volume declares itself in its derivation. How the identity of a
    real patient was removed is not known here, so those attributes are left out.
    """
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.FrameVOILUTSequence[0].VOILUTFunction = "LINEAR_EXACT"
    shared.DerivationImageSequence = _item(
        DerivationDescription=derivation.description,
        DerivationCodeSequence=_code(*derivation.code),
        SourceImageSequence=Sequence(),
    )
    if derivation.code != DRAWN:
        del dataset.PatientIdentityRemoved, dataset.DeidentificationMethod


def _add_frame_groups(dataset: Dataset, positions: list[NDArray[np.float64]], names: list[str]) -> None:
    """Add the functional groups of each frame, and the two dimensions that number the frames."""
    organization = generate_uid(entropy_srcs=[*names, "dimensions"])
    dataset.DimensionOrganizationSequence = _item(DimensionOrganizationUID=organization)
    pointers = [
        _item(
            DimensionIndexPointer=tag_for_keyword(keyword),
            FunctionalGroupPointer=tag_for_keyword("FrameContentSequence"),
            DimensionOrganizationUID=organization,
            DimensionDescriptionLabel=keyword,
        )[0]
        for keyword in ("StackID", "InStackPositionNumber")
    ]
    dataset.DimensionIndexSequence = Sequence(pointers)
    moment = WRITTEN.strftime("%Y%m%d%H%M%S")
    groups = []
    for number, position in enumerate(positions, 1):
        group = Dataset()
        group.FrameContentSequence = _item(
            FrameAcquisitionNumber=1,
            FrameReferenceDateTime=moment,
            FrameAcquisitionDateTime=moment,
            FrameAcquisitionDuration=0.0,
            StackID="1",
            InStackPositionNumber=number,
            DimensionIndexValues=[1, number],
        )
        group.XRay3DFrameTypeSequence = _item(FrameType=IMAGE_TYPE, **FRAME_TYPE)
        group.PlanePositionSequence = _item(ImagePositionPatient=_decimals(position))
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)


def _save(path: Path, dataset: Dataset, frames: NDArray[np.uint16]) -> None:
    described = {
        "rows": frames.shape[1],
        "columns": frames.shape[2],
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": BITS_STORED,
        "pixel_representation": 0,
        "number_of_frames": 1,
    }
    # Frame by frame, so that a full-size volume is never in memory twice.
    compressed = [
        JPEG2000LosslessEncoder.encode(np.ascontiguousarray(frame), encoding_plugin="pylibjpeg", **described)
        for frame in frames
    ]
    dataset.PixelData = encapsulate(compressed)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _set(dataset: Dataset, **attributes: Any) -> None:
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)


def _item(**attributes: Any) -> Sequence:
    """Make a sequence of one item."""
    item = Dataset()
    _set(item, **attributes)
    return Sequence([item])


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _decimals(values: Any) -> list[str]:
    """Write numbers as decimal strings of at most 16 characters, which pydicom does not enforce."""
    return [f"{float(value):.6f}".rstrip("0").rstrip(".") if value else "0" for value in values]
