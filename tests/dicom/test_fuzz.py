"""Thousands of damaged and contradictory files: each is refused by name, or shown as pydicom shows it.

`DBTBENCH_FUZZ=0:100000 pytest -s tests/dicom/test_fuzz.py` makes and reads the inputs of these numbers; the
same number always gives the same input.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from fuzzing import SECONDS, judge_input
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_rescale, apply_windowing
from pydicom.pixels.utils import pixel_array

from dbtbench.dicom import header
from dbtbench.dicom.volume import read_volume
from dbtbench.errors import UnreadableError

NUMBERS = range(*map(int, os.environ.get("DBTBENCH_FUZZ", "0:2000").split(":")))
SHAPE = (4, 64, 48)
Random = random.Random


# The reference: pydicom's decoding and windowing, and the plainest reading of the standard around it.


def show_by_pydicom(path: Path) -> Any:
    """Decode, rescale and window a file; slices in the order of their numbers, else of their positions."""
    ds = pydicom.dcmread(path)
    count = int(ds.NumberOfFrames)
    if ds.file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1:  # pydicom has no decoder of its own for it
        encoded = generate_frames(ds.PixelData, number_of_frames=count)
        frames = np.stack([imagecodecs.ljpeg_decode(frame) for frame in encoded])
    else:
        frames = pixel_array(ds, raw=True).reshape(count, ds.Rows, ds.Columns)
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * count
    shown = [_show_frame(frame, shared, own, ds) for frame, own in zip(frames, per_frame, strict=True)]
    numbers = [_find("FrameContentSequence", "InStackPositionNumber", own) for own in per_frame]
    if len(set(numbers)) < count:
        places = [_find("PlanePositionSequence", "ImagePositionPatient", own) for own in per_frame]
        numbers = [place[2] if place else 0 for place in places]
        if sorted(numbers, reverse=True) == numbers:  # in order from the tube to the support
            return np.stack(shown)
    return np.stack(shown)[np.argsort(np.array(numbers, float), kind="stable")]


def _find(sequence: str, keyword: str, *places: Dataset) -> Any:
    for place in places:
        for item in (*(place.get(sequence) or ()), place):
            if item.get(keyword) not in (None, ""):
                return item[keyword].value
    return None


def _show_frame(frame: Any, *places: Dataset) -> Any:
    ds, plain = places[-1], Dataset()
    plain.PixelRepresentation, plain.BitsStored = 0, ds.BitsStored
    plain.PhotometricInterpretation = ds.PhotometricInterpretation.upper()
    for keyword, missing in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        found = _find("PixelValueTransformationSequence", keyword, *places)
        setattr(plain, keyword, missing if found is None else found)
    macros = [item for place in places for item in (*(place.get("FrameVOILUTSequence") or ()), place)]
    needed = ("WindowCenter", "WindowWidth")
    whole = [item for item in macros if not any(item.get(keyword) in (None, "") for keyword in needed)]
    plain.WindowCenter, plain.WindowWidth = whole[0].WindowCenter, whole[0].WindowWidth
    function = whole[0].get("VOILUTFunction")
    plain.VOILUTFunction = function.upper().strip() if function else "LINEAR"
    ends = apply_rescale(np.array([0, 2**ds.BitsStored - 1], np.uint16), plain).astype(float)
    shown = (apply_windowing(apply_rescale(frame, plain), plain) - ends[0]) / (ends[1] - ends[0])
    if plain.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    if (value := ds.get("PixelPaddingValue")) is not None:
        low, high = sorted((value, ds.get("PixelPaddingRangeLimit", value)))
        shown[(frame >= low) & (frame <= high)] = 0
    return shown


# The seeds: one picture in nine transfer syntaxes.


def _draw(seed: int = 0) -> Any:
    z, y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    tissue = 500 + 200 * np.sin(5 * y[:, None] + 2 * z[:, None, None]) * np.cos(6 * x)
    noisy = tissue + np.random.default_rng(seed).normal(0, 25, SHAPE)
    inside = np.hypot(y[:, None] / 0.9, (x[None] + 1) / 1.5) < 1
    return np.where(inside, noisy, 0).clip(0, 1023).astype(np.uint16)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, write_dicom: Any, store_dicom: Any) -> dict[str, bytes]:
    folder, frames = tmp_path_factory.mktemp("seeds"), _draw()
    syntaxes = {"raw": uid.ExplicitVRLittleEndian, "implicit": uid.ImplicitVRLittleEndian}
    syntaxes |= {"big": uid.ExplicitVRBigEndian, "ls": uid.JPEGLSLossless, "sv1": uid.JPEGLosslessSV1}
    syntaxes |= {"rle": uid.RLELossless}
    files = {"j2k": write_dicom(folder / "j2k.dcm", frames)}
    for name, syntax in syntaxes.items():
        files[name] = store_dicom(write_dicom(folder / f"{name}.dcm", frames), frames, syntax)
    ds = pydicom.dcmread(files["j2k"])
    ds.file_meta.TransferSyntaxUID = uid.JPEG2000
    lossy = [imagecodecs.jpeg2k_encode(f, codecformat="j2k", reversible=False, level=40) for f in frames]
    ds.PixelData = encapsulate([bytes(frame) for frame in lossy])
    files["lossy"] = folder / "lossy.dcm"
    ds.save_as(files["lossy"])
    ds.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
    ds.PixelData = encapsulate([bytes(imagecodecs.htj2k_encode(frame)) for frame in frames])
    files["htj2k"] = folder / "htj2k.dcm"
    ds.save_as(files["htj2k"])
    return {name: file.read_bytes() for name, file in files.items()}


def judge(path: Path, r: Random, tolerance: float, same_pixels: Any = None) -> tuple[str, str]:
    """Read a file twice, and compare its volume with the reference.

    Args:
        path: the file.
        r: chooses how it is read.
        tolerance: of displayed values.
        same_pixels: the right volume of a file that pydicom cannot read, where it must be that of the seed.

    Returns:
        `refused`, `same`, `unjudged` (pydicom cannot read it) or a fault; and the reason or the difference.
    """
    window = r.choice(["dicom", "dicom", "duke", "none"])
    try:
        on_grid = read_volume(path, r.choice(["lcc", "rmlo"]), (2, 8, 8), window=window)
        volume = on_grid.volume
        if volume.shape != (2, 8, 8) or not (volume.min() >= 0 and volume.max() <= 1):
            return "not a volume", str(volume.shape)
    except UnreadableError:
        pass
    try:
        volume = read_volume(path, "lcc", None, exact=True, orientation="stored").volume
    except UnreadableError as error:
        return "refused", error.reason
    try:
        with np.errstate(all="ignore"):
            expected = show_by_pydicom(path)
    except Exception as error:  # whatever pydicom raises
        if same_pixels is None:
            return "unjudged", type(error).__name__
        expected = same_pixels
    if not np.isfinite(expected).all():
        return "unjudged", "not finite"
    if expected.shape != volume.shape:
        return "differs", f"{expected.shape} and not {volume.shape}"
    largest = float(np.abs(expected - volume).max())
    return ("same", "") if largest <= tolerance else ("differs", f"by {largest:.4f}")


def run(
    numbers: range, seeds: dict[str, bytes], mutate: Any, path: Path
) -> tuple[Counter[str], list[tuple[Any, ...]]]:
    """Make, read and judge the inputs of these numbers; return the verdicts, and every fault."""
    originals = {}
    for name, raw in seeds.items():
        path.write_bytes(raw)
        originals[name] = show_by_pydicom(path)
    verdicts: Counter[str] = Counter()
    faults, slowest = [], 0.0
    for number in numbers:
        name = list(seeds)[number % len(seeds)]
        content, mutator, keeps_pixels = mutate(number, seeds[name])
        path.write_bytes(content)
        tolerance, original = 0.02 if name == "lossy" else 1e-5, originals[name] if keeps_pixels else None
        one = partial(judge, path, Random(number), tolerance, original)
        verdict, detail, seconds = judge_input(one)
        verdicts[verdict] += 1
        slowest = max(slowest, seconds)
        if verdict in ("raised", "differs", "not a volume") or seconds > SECONDS:
            faults.append((number, name, mutator, verdict, detail, round(seconds, 1)))
    sys.stdout.write(f"\n{dict(verdicts)}, slowest {slowest:.1f} CPU-s\n")
    return verdicts, faults


@pytest.mark.filterwarnings("ignore")
def test_every_input_is_refused_or_shown_as_pydicom_shows_it(
    seeds: dict[str, bytes], mutate_dicom: Any, tmp_path: Path
) -> None:
    verdicts, faults = run(NUMBERS, seeds, mutate_dicom, tmp_path / "mutated.dcm")
    assert not faults, f"{len(faults)} of {len(NUMBERS)}, such as {faults[:40]}"
    assert verdicts["same"] > 0.2 * len(NUMBERS)
    assert verdicts["refused"] > 0.4 * len(NUMBERS)
    assert verdicts["unjudged"] < 0.02 * len(NUMBERS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("place", "name", "wrong"),
    [
        (header, "order_frames", lambda items, places: tuple(range(len(items)))),
        (header, "get_padding", lambda root: None),
        (header, "get_texts", lambda item, keyword: []),
        (header.Header, "shape", property(lambda self: 1 / 0)),
    ],
    ids=["order", "padding", "VOI function", "a foreign exception"],
)
def test_a_wrong_reader_is_found(
    seeds: dict[str, bytes],
    mutate_dicom: Any,
    tmp_path: Path,
    place: Any,
    name: str,
    wrong: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, name, wrong)
    assert run(range(150), seeds, mutate_dicom, tmp_path / "mutated.dcm")[1]
