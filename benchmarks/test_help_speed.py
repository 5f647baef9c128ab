"""Time of `dbtbench --help`, and CPU time of what only shows, next to the libraries that they need."""

from __future__ import annotations

import resource
import subprocess
import sys
import timeit

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

SLOWER = 3
SHOW_SLOWER = 2.5
LIBRARIES = "import pandas, pydantic, typer"
"""What a card needs; about 0.5 CPU-seconds, where torch and MONAI take four."""
SMALLEST = (
    "import typer; app = typer.Typer(rich_markup_mode=None); app.command()(lambda: None); app(['--help'])"
)


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def test_help_costs_little_more_than_the_library_it_is_made_with(benchmark: BenchmarkFixture) -> None:
    smallest = min(timeit.repeat(lambda: run("-c", SMALLEST), number=1, repeat=5))
    benchmark.pedantic(run, ("-m", "dbtbench", "--help"), rounds=5)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    assert benchmark.stats["min"] < SLOWER * smallest


def _cpu_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def libraries() -> float:
    return min(_cpu_seconds("-c", LIBRARIES) for _ in range(3))


@pytest.mark.parametrize(
    "words", [["--version"], ["list"], ["show", "ddpm"], ["show", "detection"], ["doctor"]]
)
def test_what_only_shows_costs_little_more_than_its_libraries(libraries: float, words: list[str]) -> None:
    ours = min(_cpu_seconds("-m", "dbtbench", *words) for _ in range(3))
    assert ours < SHOW_SLOWER * libraries
