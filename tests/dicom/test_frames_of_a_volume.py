"""Values of each frame: where the header has them, and in which order the frames lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dbtbench.dicom.volume import read_header, read_volume
from dbtbench.errors import UnreadableError


def linear(frames: Any, centre: float = 500, width: float = 600) -> Any:
    """PS3.3 C.11.2.1.2.1; the defaults are those of `file`."""
    return np.clip((frames.astype(float) - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def item(**values: Any) -> Sequence:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return Sequence([made])


def shared(ds: pydicom.Dataset) -> Dataset:
    group: Dataset = ds.SharedFunctionalGroupsSequence[0]
    return group


def read(file: Path, **how: Any) -> Any:
    options: dict[str, Any] = {"exact": True, "orientation": "stored"}
    return read_volume(file, "lcc", None, **options | how).volume


def refusal(file: Path) -> str:
    with pytest.raises(UnreadableError) as raised:
        read(file)
    return str(raised.value)


def test_each_frame_is_shown_by_its_own_window_slope_and_function(
    file: Path, frames: Any, change_dicom: Any
) -> None:
    windows = [(300 + 80 * k, 400 + 100 * k) for k in range(5)]

    def change(ds: pydicom.Dataset) -> None:
        del shared(ds).FrameVOILUTSequence, shared(ds).PixelValueTransformationSequence
        for k, (own, (centre, width)) in enumerate(
            zip(ds.PerFrameFunctionalGroupsSequence, windows, strict=True)
        ):
            own.FrameVOILUTSequence = item(WindowCenter=[centre, 1], WindowWidth=[width, 2])
            own.PixelValueTransformationSequence = item(RescaleSlope=k + 1, RescaleIntercept=-10 * k)
        own.FrameVOILUTSequence[0].VOILUTFunction = "sigmoid"

    change_dicom(file, change)
    values = [frame.astype(float) * (k + 1) - 10 * k for k, frame in enumerate(frames)]
    expected = [linear(value, *window) for value, window in zip(values, windows, strict=True)]
    expected[4] = 1 / (1 + np.exp(-4 * (values[4] - windows[4][0]) / windows[4][1]))
    np.testing.assert_allclose(read(file), expected, atol=1e-6)
    grid = read_volume(file, "lcc", (5, 8, 8), orientation="stored").volume  # the reduced way has tables too
    assert np.abs(grid.mean(axis=(1, 2)) - np.mean(expected, axis=(1, 2))).max() < 0.02


EMPTY = [Sequence(), item(WindowCenter="", WindowWidth=""), item(WindowCenter="500", WindowWidth=None)]


@pytest.mark.parametrize("empty", EMPTY, ids=["no item", "empty values", "half"])
@pytest.mark.parametrize("place", ["frames", "root"])
def test_a_value_wins_over_an_empty_item(
    file: Path, frames: Any, empty: Sequence, place: str, change_dicom: Any
) -> None:
    def change(ds: pydicom.Dataset) -> None:
        shared(ds).FrameVOILUTSequence = empty
        for own in ds.PerFrameFunctionalGroupsSequence if place == "frames" else []:
            own.FrameVOILUTSequence = item(WindowCenter=400, WindowWidth=700)
        if place == "root":
            ds.WindowCenter, ds.WindowWidth = 400, 700

    np.testing.assert_allclose(read(change_dicom(file, change)), linear(frames, 400, 700), atol=1e-6)


def test_a_slope_without_an_intercept_counts(file: Path, frames: Any, change_dicom: Any) -> None:
    def change(ds: pydicom.Dataset) -> None:
        shared(ds).PixelValueTransformationSequence = item(RescaleSlope="0.5")

    np.testing.assert_allclose(read(change_dicom(file, change)), linear(frames * 0.5), atol=1e-6)


def give_one(ds: pydicom.Dataset, **macros: Any) -> None:
    """Give one frame a functional group of its own."""
    for keyword, values in macros.items():
        setattr(ds.PerFrameFunctionalGroupsSequence[3], keyword, item(**values))


def spread(ds: pydicom.Dataset, keyword: str, name: str, values: list[Any]) -> None:
    """Move a group from the shared ones to the frames, with values of their own."""
    delattr(shared(ds), keyword)
    for own, value in zip(ds.PerFrameFunctionalGroupsSequence, values, strict=True):
        setattr(own, keyword, item(**{name: value}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ds: give_one(ds, FrameVOILUTSequence={"WindowCenter": 1, "WindowWidth": 9}), "they share"),
        (lambda ds: spread(ds, "PixelMeasuresSequence", "PixelSpacing", [[1, 1]] * 4 + [[2, 2]]), "spacing"),
        (lambda ds: spread(ds, "FrameAnatomySequence", "FrameLaterality", ["L"] * 4 + ["R"]), "laterality"),
        (lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "4 of them, and 5 frames"),
        (lambda ds: ds.SharedFunctionalGroupsSequence.append(Dataset()), "several shared"),
    ],
)  # fmt: skip
def test_frames_that_contradict_each_other_are_refused(
    file: Path, change: Callable[[pydicom.Dataset], object], why: str, change_dicom: Any
) -> None:
    assert why in refusal(change_dicom(file, change))


def number(ds: pydicom.Dataset, numbers: Any = None, places: Any = None) -> None:
    for k, own in enumerate(ds.PerFrameFunctionalGroupsSequence):
        if numbers is None:
            del own.FrameContentSequence
        else:
            own.FrameContentSequence[0].InStackPositionNumber = numbers[k]
        if places is None:
            del own.PlanePositionSequence
        else:
            own.PlanePositionSequence[0].ImagePositionPatient = [0, 0, places[k]]


SHUFFLED = [3, 0, 4, 1, 2]


@pytest.mark.parametrize(
    ("numbers", "places", "order"),
    [
        ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        ([1, 2, 3, 4, 5], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]),  # from the tube to the support, as numbered
        ([5, 4, 3, 2, 1], [4, 3, 2, 1, 0], [4, 3, 2, 1, 0]),
        ([4, 1, 5, 2, 3], SHUFFLED, [1, 3, 4, 0, 2]),
        ([4, 1, 5, 2, 3], None, [1, 3, 4, 0, 2]),
        (None, SHUFFLED, [1, 3, 4, 0, 2]),
        (None, [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]),
        (None, [7, 7, 7, 7, 7], [0, 1, 2, 3, 4]),  # no positions, as de-identification leaves them
        ([1, 1, 1, 1, 1], None, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_are_put_in_the_order_of_their_positions(
    file: Path, frames: Any, numbers: Any, places: Any, order: list[int], change_dicom: Any
) -> None:
    change_dicom(file, lambda ds: number(ds, numbers, places))
    assert read_header(file).order == tuple(order)
    np.testing.assert_allclose(read(file), linear(frames[order]), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ds: number(ds, [1, 2, 3, 4, 5], SHUFFLED), "their numbers contradict their positions"),
        (lambda ds: number(ds, None, [0, 1, 2, 2, 3]), "two lie at the same place"),
        (lambda ds: number(ds, [1, 2, 3, 3, 4], None), "not each has its own number"),
        (lambda ds: give_one(ds, FrameContentSequence={"StackID": "2"}), "stacks"),
        (lambda ds: give_one(ds, PlanePositionSequence={}), "some have no position"),
    ],
)  # fmt: skip
def test_frames_without_a_single_order_are_refused(
    file: Path, change: Callable[[pydicom.Dataset], object], why: str, change_dicom: Any
) -> None:
    text = refusal(change_dicom(file, change))
    assert text.startswith("frames have no single order: ")
    assert why in text


def test_a_header_of_many_megabytes_is_read_soon(file: Path, frames: Any, change_dicom: Any) -> None:
    """Wide-angle systems name the projections of each frame; others store a picture as an icon."""
    sources = [item(ReferencedSOPInstanceUID=uid.generate_uid())[0] for _ in range(3000)]

    def change(ds: pydicom.Dataset) -> None:
        for own in ds.PerFrameFunctionalGroupsSequence:
            own.DerivationImageSequence = item(SourceImageSequence=Sequence(sources))
            own["DerivationImageSequence"].is_undefined_length = True
            own.DerivationImageSequence[0].is_undefined_length_sequence_item = True
            own.DerivationImageSequence[0]["SourceImageSequence"].is_undefined_length = True
        ds.IconImageSequence = item(Rows=1000, PixelData=b"\0" * 2_000_000)
        ds.IconImageSequence[0]["PixelData"].VR = "OW"
        ds["IconImageSequence"].is_undefined_length = True

    change_dicom(file, change)
    assert file.stat().st_size > 3e6
    np.testing.assert_allclose(read(file), linear(frames), atol=1e-6)


def test_functional_groups_of_unknown_type_are_read(file: Path, frames: Any) -> None:
    """PS3.5 6.2.2: a sequence as UN is in implicit VR, as software leaves it that does not know the tag."""
    ds, content = pydicom.dcmread(file), pydicom.filebase.DicomBytesIO()
    content.is_little_endian, content.is_implicit_VR = True, True
    pydicom.filewriter.write_sequence(content, ds["SharedFunctionalGroupsSequence"], ["iso8859"])
    value = content.getvalue()
    ds._dict[Tag(0x52009229)] = RawDataElement(Tag(0x52009229), "UN", len(value), value, 0, False, True)
    ds.save_as(file)
    assert b"\x00\x52\x29\x92UN" in file.read_bytes()
    np.testing.assert_allclose(read(file), linear(frames), atol=1e-6)
