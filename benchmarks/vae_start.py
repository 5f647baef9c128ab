"""What training adds to a VAE: its reconstruction error beside that of the components it started from.

    python benchmarks/vae_start.py WORK/datasets/DRAWN [--split validation]

DRAWN is a data set that `dbtbench generate vae` drew; its weights are loaded, and nothing is trained. The
components are as many as the code has numbers. A Markdown table on stdout, for the training split, of which
the components know every volume, and for one that neither has seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dbtbench.data.dataset import DBTDataset
from dbtbench.generators.vae import VAEGenerator
from dbtbench.generators.vae.scoring import measure_errors
from dbtbench.pipeline.fitted import find_fitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("--split", default="validation", choices=["validation", "test"])
    options = parser.parse_args()
    drawn = DBTDataset.open(options.drawn)
    real = DBTDataset.open(options.drawn.parent / drawn.meta["source"]["data"]["name"])
    generator = find_fitted(drawn, real)
    if not isinstance(generator, VAEGenerator):
        raise SystemExit(f"{options.drawn} was not drawn by the vae")
    print("| split | volumes | components | vae | change | volumes improved |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    for split in ("train", options.split):
        errors = measure_errors(generator.recipe, generator.model, real.select(split))
        trained, start = errors.mean(axis=0)
        better = (errors[:, 0] < errors[:, 1]).mean()
        change = f"{100 * (trained / start - 1):+.1f} %"
        print(f"| {split} | {len(errors)} | {start:.5f} | {trained:.5f} | {change} | {better:.0%} |")  # noqa: T201


if __name__ == "__main__":
    main()
