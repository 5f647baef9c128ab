r"""Fingerprints of phantom volumes: those of four patients of each preset are pinned in phantom_bytes.json.

    python benchmarks/phantom_bytes.py             # make all 48 volumes, and compare them (a CPU minute)
    python benchmarks/phantom_bytes.py --write     # pin them again, with a new VERSION of the phantom
    python benchmarks/phantom_bytes.py tiny/1/lcc  # print the fingerprint of one volume, or of several
    python benchmarks/phantom_bytes.py tiny/1/lcc --levels  # of its values before they are whole numbers

The phantom must have these bytes on every processor. Settings that stand for others (tests/phantom/
test_same_bytes.py runs a few volumes under three):

    NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL" OPENBLAS_CORETYPE=Prescott \
        GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-FMA python benchmarks/phantom_bytes.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dbtbench.geometry.views import laterality
from dbtbench.phantom.cohort import ENRICHED, VERSION, VIEWS, draw_patients
from dbtbench.phantom.simulation import PRESETS, compute_levels, simulate

PINNED = Path(__file__).with_name("phantom_bytes.json")
PATIENTS = 4


def make(name: str, run: Callable[..., NDArray[Any]] = simulate) -> NDArray[Any]:
    """Simulate the volume PRESET/PATIENT/VIEW of the cohort of seed 0, by `simulate` or `compute_levels`."""
    preset, number, view = name.split("/")
    patient = draw_patients(PATIENTS, 0, ENRICHED)[int(number) - 1]
    seed = [0, patient.number, VIEWS.index(view) + 1]
    return run(PRESETS[preset], patient.breasts[laterality(view)], view, patient.lesion_in(view), seed)


def fingerprint(name: str) -> str:
    """Hash the volume PRESET/PATIENT/VIEW."""
    return hashlib.sha256(make(name).astype("<u2").tobytes()).hexdigest()


def fingerprint_levels(name: str) -> str:
    """Hash the values of the volume before they are whole numbers, which would hide small differences."""
    return hashlib.sha256(make(name, compute_levels).astype("<f8").tobytes()).hexdigest()


def read_pinned() -> dict[str, str]:
    """Read the pinned fingerprints by name.

    Raises:
        ValueError: when they are those of another version of the phantom.
    """
    pinned = json.loads(PINNED.read_text())
    if pinned["version"] != VERSION:
        raise ValueError(f"the fingerprints are of phantom version {pinned['version']}, this is {VERSION}")
    volumes: dict[str, str] = pinned["volumes"]
    return volumes


def main() -> int:
    """Compare, write or print fingerprints; 1 when some differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="PRESET/PATIENT/VIEW")
    parser.add_argument("--write", action="store_true", help="pin all again")
    parser.add_argument("--levels", action="store_true", help="of values that are not rounded yet")
    asked = parser.parse_args()
    everything = [f"{p}/{n}/{view}" for p in PRESETS for n in range(1, PATIENTS + 1) for view in VIEWS]
    hashed = fingerprint_levels if asked.levels else fingerprint
    made = {name: hashed(name) for name in asked.names or everything}
    if asked.names or asked.levels:
        sys.stdout.write(json.dumps(made) + "\n")
        return 0
    if asked.write:
        PINNED.write_text(json.dumps({"version": VERSION, "volumes": made}, indent=1) + "\n")
        return 0
    pinned = read_pinned()
    different = [name for name in everything if made[name] != pinned.get(name)]
    sys.stdout.write(f"{len(different)} of {len(made)} volumes differ: {', '.join(different) or 'none'}\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
