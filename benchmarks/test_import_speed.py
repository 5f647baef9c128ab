"""Reading a full-size volume (60 × 2457 × 1890): dbtbench beside the usual way, a fresh process each.

CPU seconds and peak memory are of the whole process, imports included. The volume is a phantom, magnified to
the size of BCS-DBT's and with noise of its own, so that JPEG 2000 takes about 2 bits a voxel, as there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scipy.ndimage import zoom

from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.phantom.anatomy import draw_breasts
from dbtbench.phantom.numbers import stream
from dbtbench.phantom.simulation import PRESETS, simulate

pytestmark = pytest.mark.slow

SHAPE, DISTINCT, GRID = (60, 2457, 1890), 15, (8, 64, 64)
VOLUMES_OF_BCS_DBT = 22_032
MEASURE = """
import json, resource, sys
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
if out is not None:
    np.save(sys.argv[2], out)
# ru_maxrss would remember how large the process was that started this one.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0])
print(json.dumps([used.ru_utime + used.ru_stime, peak / 1024]))
"""
USUAL = """
import numpy as np, pydicom, torch, torchio
torch.set_num_threads(1)
frames = pydicom.dcmread(sys.argv[1]).pixel_array.astype(np.float32)
resized = torchio.Resize((64, 64, 8))(torch.from_numpy(frames.transpose(2, 1, 0))[None])
out = resized[0].permute(2, 1, 0).numpy()
"""
OURS = """
import numpy as np
from pathlib import Path
from dbtbench.dicom.volume import read_volume
out = read_volume(Path(sys.argv[1]), "lcc", (8, 64, 64), exact={exact}).volume
"""
DECODER = """
import numpy as np, pydicom
from pydicom.encaps import generate_frames
{decode}
pixels = pydicom.dcmread(sys.argv[1])["PixelData"]
native = np.frombuffer(pixels.value, np.uint16) if not pixels.is_undefined_length else None
for frame in generate_frames(pixels.value, number_of_frames=60) if native is None else native.reshape(60, -1):
    decode(frame)
out = None
"""
DECODERS = {
    JPEG2000Lossless: (
        "from imagecodecs import jpeg2k_decode\ndecode = lambda f: jpeg2k_decode(f, numthreads=1)"
    ),
    JPEGLSLossless: "from imagecodecs import jpegls_decode as decode",
    JPEGLosslessSV1: "from imagecodecs import jpeg8_decode as decode",
    RLELossless: (
        "from imagecodecs import dicomrle_decode\n"
        "decode = lambda f: dicomrle_decode(f, '<u2', out=2457 * 1890 * 2)"
    ),
    ExplicitVRLittleEndian: "decode = np.copy",
}


@dataclass(frozen=True)
class Cost:
    """Of one process: CPU seconds, peak MB, and the volume it read."""

    cpu: float
    peak: float
    volume: NDArray[np.float32] | None


def measure(code: str, file: Path, out: Path) -> Cost:
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(code=code), str(file), str(out)],
        check=True,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": ""},
    )
    cpu, peak = json.loads(done.stdout)
    return Cost(cpu, peak, np.load(out) if out.exists() else None)


def frames() -> NDArray[np.uint16]:
    """(15, 2457, 1890): a standard phantom's slices, magnified, with noise where there is breast."""
    breast = draw_breasts(stream(0))["l"]
    small = simulate(PRESETS["standard"], breast, "lcc", None, [0])[::2][:DISTINCT].astype(np.float32)
    rng = np.random.default_rng(0)
    full = np.empty((DISTINCT, *SHAPE[1:]), np.uint16)
    for index, frame in enumerate(small):
        large = zoom(frame, (SHAPE[1] / frame.shape[0], SHAPE[2] / frame.shape[1]), order=1)
        noise = rng.normal(0, 20, large.shape)
        full[index] = np.where(large > 8, np.clip(large + noise, 0, 1023), 0)
    return full


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as in BCS-DBT: JPEG 2000 lossless, 60 frames (15 distinct ones, four times)."""
    path = tmp_path_factory.mktemp("full") / "volume.dcm"
    write_tomosynthesis(
        path,
        frames(),
        view="lcc",
        patient_id="P",
        study_id="S",
        pixel_mm=(0.1, 0.1),
        slice_mm=1.0,
        window=(512.0, 512.0),
        uid_seed="benchmark",
    )
    dataset = pydicom.dcmread(path)
    encoded = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=DISTINCT))
    dataset.NumberOfFrames = SHAPE[0]
    groups = [deepcopy(group) for group in list(dataset.PerFrameFunctionalGroupsSequence) * 4]
    for number, group in enumerate(groups):
        group.FrameContentSequence[0].InStackPositionNumber = number + 1
        group.FrameContentSequence[0].DimensionIndexValues = [1, number + 1]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        position[2] = number  # 1 mm between slices
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = encapsulate(encoded * 4)
    dataset.save_as(path)
    return path


def transcoded(volume: Path, syntax: pydicom.uid.UID) -> Path:
    """The same volume in another transfer syntax."""
    path = volume.with_name(f"{syntax.keyword}.dcm")
    dataset = pydicom.dcmread(volume)
    if syntax == JPEG2000Lossless:
        return volume
    encoded = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=SHAPE[0])
    distinct = [imagecodecs.jpeg2k_decode(next(encoded)) for _ in range(DISTINCT)]
    if syntax == JPEGLosslessSV1:
        dataset.PixelData = encapsulate(
            [bytes(imagecodecs.ljpeg_encode(f, bitspersample=10)) for f in distinct] * 4
        )
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.PixelData = np.concatenate(distinct * 4).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = False
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax, encoding_plugin={JPEGLSLossless: "pyjpegls"}.get(syntax, "pylibjpeg"))
    dataset.save_as(path)
    return path


def test_the_default_path_takes_a_small_part_of_the_usual_way_s_time_and_memory(
    volume: Path, tmp_path: Path
) -> None:
    usual = measure(USUAL, volume, tmp_path / "usual.npy")
    ours = measure(OURS.format(exact=False), volume, tmp_path / "ours.npy")
    exact = measure(OURS.format(exact=True), volume, tmp_path / "exact.npy")
    decoder = measure(DECODER.format(decode=DECODERS[JPEG2000Lossless]), volume, tmp_path / "none.npy")
    for name, cost in (("usual", usual), ("default", ours), ("exact", exact), ("decoder alone", decoder)):
        sys.stdout.write(f"\n{name}: {cost.cpu:.2f} CPU-s, {cost.peak:.0f} MB")
    hours = {n: ours.cpu * VOLUMES_OF_BCS_DBT / n / 3600 for n in (2, 16, 128)}
    sys.stdout.write(f"\ncomputed for {VOLUMES_OF_BCS_DBT} volumes, hours by cores: {hours}\n")
    assert ours.volume is not None
    assert exact.volume is not None
    tissue = exact.volume > 0.02
    r = np.corrcoef(ours.volume[tissue], exact.volume[tissue])[0, 1]
    sys.stdout.write(f"correlation with the exact means in tissue: {r:.5f}\n")
    assert r > 0.999
    assert usual.cpu > 15 * ours.cpu
    assert usual.peak > 25 * ours.peak
    assert ours.peak < 250
    assert exact.peak < 250
    assert exact.cpu < 1.3 * decoder.cpu


@pytest.mark.parametrize("syntax", [*DECODERS][1:], ids=lambda uid: uid.keyword)
def test_no_other_syntax_costs_much_more_than_its_decoder(
    volume: Path, tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    file = transcoded(volume, syntax)
    ours = measure(OURS.format(exact=True), file, tmp_path / "ours.npy")
    decoder = measure(DECODER.format(decode=DECODERS[syntax]), file, tmp_path / "none.npy")
    size = file.stat().st_size / 1e6
    sys.stdout.write(
        f"\n{syntax.name}, {size:.0f} MB: {ours.cpu:.2f} CPU-s, {ours.peak:.0f} MB; alone {decoder.cpu:.2f}\n"
    )
    assert ours.peak < 250
    assert ours.cpu < 1.3 * decoder.cpu + 3  # arithmetic on the pixels and imports, which no codec hides
