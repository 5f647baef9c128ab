"""Time and memory of measuring 256 volumes for the task `realism`: `python benchmarks/realism_cost.py`.

Writes data sets of random breasts on two grids in a temporary folder, measures them as the task does,
streamed from disk, each in a process of its own, and prints CPU-seconds and the peak of memory. One thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.groups import describe_groups
from dbtbench.testing import make_toy_dataset

VOLUMES = 256
GRIDS = ((8, 64, 64), (32, 256, 256))
MOST_MB = 1500


def measure(folder: Path, queue: multiprocessing.Queue[tuple[float, float]], features: bool) -> None:
    """Measure a data set, and put CPU-seconds and the peak of this process in MB into a queue."""
    import torch

    from dbtbench.tasks.realism.table import measure_dataset, measure_planes

    torch.set_num_threads(1)
    data = DBTDataset.open(folder)
    started = time.process_time()
    table = measure_dataset(data, describe_groups(data), lambda _=1: None, 0)
    if features:
        measure_planes(table)
    queue.put((time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main(words: list[str] | None = None) -> bool:
    """Print a line for each grid; False where one needs more memory than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=VOLUMES, help="four for each patient")
    parser.add_argument("--features", action="store_true", help="features of ImageNet as well")
    asked = parser.parse_args(words)
    context, within = multiprocessing.get_context("spawn"), True
    for grid in GRIDS:
        with tempfile.TemporaryDirectory() as folder:
            data = make_toy_dataset(Path(folder) / "data", patients=max(1, asked.volumes // 4), grid=grid)
            queue = context.Queue()
            process = context.Process(target=measure, args=(data.path, queue, asked.features))
            process.start()
            seconds, peak = queue.get()
            process.join()
        within &= peak < MOST_MB
        size = "×".join(map(str, grid))
        sys.stdout.write(f"{len(data)} volumes of {size}: {seconds:.0f} CPU-seconds, peak {peak:.0f} MB\n")
    return within


if __name__ == "__main__":
    sys.exit(not main())
