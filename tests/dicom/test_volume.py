"""A Breast Tomosynthesis file becomes a volume on the grid."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from dbtbench.dicom import volume as dicom
from dbtbench.dicom.frames import Frames
from dbtbench.dicom.volume import image_laterality, read_header, read_volume
from dbtbench.errors import UnreadableError
from dbtbench.geometry.resample import area_mean, torchio_resize

CENTRE, WIDTH = 500.0, 600.0  # as `write_file` writes


def breast(shape: tuple[int, int, int], seed: int = 0) -> Any:
    """A left breast, 10 bits: smooth tissue with noise on the left, air on the right."""
    z, y, x = (np.linspace(-1, 1, n) for n in shape)
    from_chest = np.hypot(y[:, None] / 0.9, (x[None] + 1) / 1.5)
    tissue = 500 + 150 * np.sin(5 * y[:, None] + 2 * z[:, None, None]) * np.cos(6 * x)
    noisy = tissue + np.random.default_rng(seed).normal(0, 25, shape)
    return np.where(from_chest < 1, noisy, 0).clip(0, 1023).astype(np.uint16)


def linear(frames: Any) -> Any:
    """PS3.3 C.11.2.1.2.1."""
    return np.clip((frames.astype(float) - (CENTRE - 0.5)) / (WIDTH - 1) + 0.5, 0, 1)


def test_frames_come_in_order_windowed_and_not_turned(file: Path, frames: Any) -> None:
    reading = read_volume(file, "lcc", None)
    assert not reading.flipped
    assert reading.volume.dtype == np.float32
    np.testing.assert_allclose(reading.volume, linear(frames), atol=1e-6)
    assert reading.header == read_header(file)


def test_the_window_asked_for_is_used(file: Path, frames: Any) -> None:
    stored = read_volume(file, "lcc", None, window="none").volume
    np.testing.assert_allclose(stored, frames / 1023, atol=1e-6)
    duke = read_volume(file, "lcc", None, window="duke").volume
    np.testing.assert_allclose(duke, np.clip((frames - 200.0) / 600, 0, 1), atol=2e-5)


SYNTAXES = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.RLELossless,
]


@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_gives_the_same_bytes(
    file: Path, frames: Any, syntax: uid.UID, bits: int, store_dicom: Any
) -> None:
    expected = read_volume(file, "lcc", (2, 12, 12)).volume
    store_dicom(file, frames, syntax, bits)
    assert read_header(file).transfer_syntax == syntax
    assert read_volume(file, "lcc", (2, 12, 12)).volume.tobytes() == expected.tobytes()


@pytest.mark.parametrize("with_table", [True, False])
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless])
def test_frames_in_several_fragments_are_put_together(
    file: Path, frames: Any, syntax: uid.UID, with_table: bool, change_dicom: Any, store_dicom: Any
) -> None:
    store_dicom(file, frames, syntax, fragments=3)
    if not with_table:

        def forget(ds: pydicom.Dataset) -> None:
            table = struct.unpack_from("<I", ds.PixelData, 4)[0]
            ds.PixelData = ds.PixelData[:4] + bytes(4) + ds.PixelData[8 + table :]

        change_dicom(file, forget)
    np.testing.assert_allclose(read_volume(file, "lcc", None).volume, linear(frames), atol=1e-6)


def test_torchio_resamples_full_frames_as_displayed(file: Path, frames: Any) -> None:
    expected = torchio_resize(linear(frames).astype(np.float32)[:, ::-1, ::-1], (4, 16, 16))
    reading = read_volume(file, "rcc", (4, 16, 16), resample="torchio")
    np.testing.assert_allclose(reading.volume, expected, atol=1e-5)


def test_laterality_is_where_the_edge_is_brighter() -> None:
    frame = np.zeros((4, 4), np.uint16)
    assert image_laterality(frame) is None  # a tie decides nothing
    assert image_laterality(frame.astype(np.float32)) is None
    frame[:, -1] = 65535
    assert image_laterality(frame) == "r"
    frame[:, 0], frame[0, 0] = 65535, 65534
    assert image_laterality(frame) == "r"
    assert image_laterality(frame[:, ::-1].astype(np.float32)) == "l"


@pytest.mark.parametrize("grid", [None, (3, 12, 12)])
def test_where_image_and_view_disagree_both_axes_are_flipped_and_frames_keep_their_order(
    file: Path, grid: Any
) -> None:
    straight, turned = read_volume(file, "lcc", grid), read_volume(file, "rcc", grid)
    assert (straight.flipped, turned.flipped) == (False, True)
    np.testing.assert_array_equal(turned.volume[:, ::-1, ::-1], straight.volume)


def test_the_edge_columns_decide_at_full_resolution(tmp_path: Path, write_dicom: Any) -> None:
    """A black chest-wall column, as scanners leave: all signal is near the left edge, and the rule says r."""
    frames = breast((3, 256, 192))
    frames[:, :, 0] = 0
    frames[:, ::2, -1] = 1
    reading = read_volume(write_dicom(tmp_path / "volume.dcm", frames), "lcc", (3, 8, 8))
    assert reading.flipped
    assert reading.volume[:, :, -1].mean() > reading.volume[:, :, 0].mean()


def test_only_frame_0_decides(tmp_path: Path, write_dicom: Any) -> None:
    frames = breast((3, 64, 64))
    frames[1:] = frames[1:, ::-1, ::-1]
    assert not read_volume(write_dicom(tmp_path / "volume.dcm", frames), "lcc", (3, 8, 8)).flipped


ODD, COARSE = (6, 515, 389), (3, 12, 12)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, write_dicom: Any) -> Path:
    file = tmp_path_factory.mktemp("odd") / "volume.dcm"
    write_dicom(file, breast(ODD))
    return file


def powers_used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    used: list[int] = []
    read = Frames.read

    def spy(self: Frames, index: int, reduction: int = 0) -> Any:
        used.append(reduction)
        return read(self, index, reduction)

    monkeypatch.setattr(Frames, "read", spy)
    return used


def test_jpeg2000_is_decoded_reduced_and_agrees_with_the_exact_means(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = area_mean(linear(breast(ODD)).astype(np.float32), ODD, COARSE)
    tissue = expected > 0.02
    exact = read_volume(odd, "lcc", COARSE, exact=True).volume
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    used = powers_used(monkeypatch)
    for view, turned in (("lcc", slice(None)), ("rcc", slice(None, None, -1))):
        reduced = read_volume(odd, view, COARSE).volume[:, turned, turned]
        assert np.corrcoef(reduced[tissue], expected[tissue])[0, 1] > 0.999
        assert np.abs(reduced - expected)[tissue].mean() < 0.005
    assert used == [0, *[3] * 6] * 2  # frame 0 in full for the laterality, then all reduced


def test_reduced_noise_keeps_its_mean(tmp_path: Path, write_dicom: Any) -> None:
    """The reversible wavelet rounds up, by 1.5 stored values at 1/8."""
    noise = np.random.default_rng(0).normal(500, 25, (2, 512, 512)).astype(np.uint16)
    volume = read_volume(
        write_dicom(tmp_path / "volume.dcm", noise), "lcc", (1, 16, 16), window="none"
    ).volume
    assert volume.mean() * 1023 == pytest.approx(noise.mean(), abs=0.1)


@pytest.mark.parametrize(
    ("shape", "levels", "grid", "power"),
    [
        ((60, 2457, 1890), 5, (8, 64, 64), 3),
        ((60, 2457, 1890), 2, (8, 64, 64), 2),
        ((60, 2457, 1890), 5, (8, 128, 128), 2),
        ((60, 2457, 1890), 5, (8, 256, 256), 1),
        ((60, 2457, 1890), 5, (8, 512, 512), 0),
        ((60, 2457, 1890), 1, (8, 64, 64), 1),
        ((60, 2457, 1890), 0, (8, 64, 64), 0),
        ((60, 2457, 1890), 5, (60, 2457, 1890), 0),
    ],
)
def test_every_cell_keeps_three_and_a_half_pixels(
    shape: Any, levels: int, grid: Any, power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dicom._choose_reduction(levels, shape, grid) == power


def test_where_reduced_decoding_fails_frames_are_decoded_in_full(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = read_volume(odd, "lcc", COARSE, exact=True).volume
    read = Frames.read

    def fails(self: Frames, index: int, reduction: int = 0) -> Any:
        if reduction and index == 4:
            raise UnreadableError("cannot be decoded")
        return read(self, index, reduction)

    monkeypatch.setattr(Frames, "read", fails)
    np.testing.assert_array_equal(read_volume(odd, "lcc", COARSE).volume, exact)


def test_a_pillow_that_scales_otherwise_is_noticed(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = read_volume(odd, "lcc", COARSE, exact=True).volume
    read = Frames.read
    monkeypatch.setattr(Frames, "read", lambda self, k, r=0: read(self, k, r) << (6 if r else 0))
    np.testing.assert_array_equal(read_volume(odd, "lcc", COARSE).volume, exact)


def test_other_syntaxes_are_never_reduced(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_dicom: Any
) -> None:
    copy = tmp_path / "volume.dcm"
    copy.write_bytes(odd.read_bytes())
    exact = read_volume(odd, "lcc", COARSE, exact=True).volume
    used = powers_used(monkeypatch)
    store_dicom(copy, breast(ODD), uid.RLELossless)
    np.testing.assert_array_equal(read_volume(copy, "lcc", COARSE).volume, exact)
    assert set(used) == {0}


MEASURE = """
import resource, sys
from pathlib import Path
from dbtbench.dicom.volume import read_volume
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
read_volume(Path(sys.argv[1]), "lcc", (8, 32, 32), exact=sys.argv[2] == "exact")
print(peak() - before, "torch" in sys.modules)
"""


@pytest.mark.parametrize("how", ["reduced", "exact"])
def test_memory_is_a_few_frames_and_torch_is_not_imported(
    tmp_path: Path, how: str, write_dicom: Any, change_dicom: Any, compress_frame: Any
) -> None:
    shape = (40, 768, 640)
    few = [compress_frame(frame, uid.JPEG2000Lossless, 10) for frame in breast((2, *shape[1:]))]
    file = write_dicom(tmp_path / "volume.dcm", np.zeros((40, 32, 32), np.uint16))

    def enlarge(ds: pydicom.Dataset) -> None:
        _, ds.Rows, ds.Columns = shape
        ds.PixelData = encapsulate(few * 20)

    change_dicom(file, enlarge)
    command = [sys.executable, "-c", MEASURE, str(file), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, torch_imported = done.stdout.split()
    frame = math.prod(shape[1:]) * 4 / 2**20
    assert float(megabytes) < 15 * frame < math.prod(shape) * 2 / 2**20
    assert torch_imported == "False"
