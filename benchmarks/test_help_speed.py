"""How long `dbtbench --help` takes, beside the smallest program with the same command-line library."""

from __future__ import annotations

import subprocess
import sys
import timeit

from pytest_benchmark.fixture import BenchmarkFixture

SLOWER = 3
SMALLEST = (
    "import typer; app = typer.Typer(rich_markup_mode=None); app.command()(lambda: None); app(['--help'])"
)


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def test_help_costs_little_more_than_the_library_it_is_made_with(benchmark: BenchmarkFixture) -> None:
    smallest = min(timeit.repeat(lambda: run("-c", SMALLEST), number=1, repeat=5))
    ours = min(timeit.repeat(lambda: run("-m", "dbtbench", "--help"), number=1, repeat=5))
    benchmark(run, "-m", "dbtbench", "--help")
    assert ours < SLOWER * smallest
