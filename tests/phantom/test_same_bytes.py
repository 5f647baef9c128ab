"""The same bytes on every processor."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import phantom_bytes
import pytest
import torch
from numpy.typing import ArrayLike

from dbtbench.phantom import acquisition, numbers
from dbtbench.phantom.numbers import Array, round_to_grid

VOLUMES = ["tiny/1/lcc", "tiny/2/rmlo"]
"""Both have a lesion."""
INEXACT = ("exp", "log", "sin", "cos", "tan", "arctan2", "hypot", "power", "tanh", "std", "interp")


@functools.cache
def expected() -> dict[str, str]:
    return {name: phantom_bytes.fingerprint(name) for name in VOLUMES}


@functools.cache
def expected_levels() -> dict[str, str]:
    return {name: phantom_bytes.fingerprint_levels(name) for name in VOLUMES}


def test_pinned_fingerprints_are_met() -> None:
    """These few; `python benchmarks/phantom_bytes.py` compares all."""
    pinned = phantom_bytes.read_pinned()
    assert len(pinned) == 3 * 4 * 4
    some = {**expected(), "small/3/rmlo": phantom_bytes.fingerprint("small/3/rmlo")}
    assert some == {name: pinned[name] for name in some}


@pytest.mark.parametrize(
    ("capability", "threads", "disabled", "blas", "libm"),
    [
        ("default", "1", ("X86_V3", "X86_V4", "AVX"), "Prescott", "-AVX2,-FMA"),
        ("avx2", "2", ("X86_V4", "AVX512"), "Haswell", ""),
        ("avx512", "2", (), "SkylakeX", ""),
    ],
)
def test_other_processors_make_the_same_bytes(
    capability: str, threads: str, disabled: tuple[str, ...], blas: str, libm: str
) -> None:
    """The switches of numpy, OpenBLAS, the C library, PyTorch and MKL stand for other processors.

    Compared before values are whole numbers, which would hide what rounding to grids is there to remove.
    """
    own = torch.backends.cpu.get_cpu_capability()
    if capability == "avx512" and own != "AVX512":
        pytest.skip(f"this processor has {own} and no AVX-512: libraries that have to use it are killed")
    simd = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    off = [feature for feature in simd if feature.startswith(disabled)]
    settings = {
        "ATEN_CPU_CAPABILITY": capability,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": " ".join(off),
        "OPENBLAS_CORETYPE": blas,
        "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={libm}" if libm else "",
    }
    ran = subprocess.run(
        [sys.executable, Path(phantom_bytes.__file__), *VOLUMES, "--levels"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout) == expected_levels()


Apply = Callable[[Callable[..., Array], float], None]


@pytest.fixture
def perturb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Apply]:
    """Multiply all that is rounded, and all that numpy and scipy compute inexactly, by 1 ± a little."""
    rng = np.random.default_rng(0)

    def apply(rounding: Callable[..., Array], size: float) -> None:
        def disturb(values: ArrayLike) -> Array:
            exact = np.asarray(values, np.float64)
            return exact * (1 + size * rng.choice((-1.0, 1.0), exact.shape))

        def inexact(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **settings: Any) -> Any:
                out = function(*args, **settings)
                is_float = isinstance(out, np.ndarray | np.floating) and out.dtype.kind == "f"
                return disturb(out) if is_float else out

            return call

        for name in INEXACT:
            monkeypatch.setattr(np, name, inexact(getattr(np, name)))
        for module in [m for name, m in sys.modules.items() if name.startswith("dbtbench.phantom.")]:
            for name, value in list(vars(module).items()):
                if callable(value) and str(getattr(value, "__module__", "")).startswith("scipy.ndimage"):
                    monkeypatch.setattr(module, name, inexact(value))
                elif name == "round_to_grid":
                    rounded = lambda values, *step: rounding(disturb(values), *step)  # noqa: E731
                    monkeypatch.setattr(module, name, rounded)
        forget_tables()

    yield apply
    monkeypatch.undo()
    forget_tables()


def forget_tables() -> None:
    numbers._normal_quantiles.cache_clear()
    acquisition._transmissions.cache_clear()


def test_one_part_in_a_trillion_changes_nothing(perturb: Apply) -> None:
    wanted = expected()
    perturb(round_to_grid, 1e-12)
    assert {name: phantom_bytes.fingerprint(name) for name in VOLUMES} == wanted


def test_ten_thousand_times_more_moves_some_values_by_a_level(perturb: Apply) -> None:
    """So the perturbation does reach the volumes; and rounding keeps what it moves where it is."""
    before = [phantom_bytes.make(name).astype(int) for name in VOLUMES]
    perturb(round_to_grid, 1e-8)
    after = [phantom_bytes.make(name).astype(int) for name in VOLUMES]
    changes = [np.abs(one - other) for one, other in zip(before, after, strict=True)]
    assert all(0 < change.max() <= 2 and (change > 0).mean() < 0.01 for change in changes)
