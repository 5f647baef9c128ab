"""`dbtbench data`: make, import and look at data sets."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import DataOption, FreshOption, JsonOption, WorkspaceOption
from dbtbench.errors import UsageError

app = typer.Typer(
    help="Make, import and look at data sets.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
importing = typer.Typer(
    help="Turn files into a data set.", rich_markup_mode=None, no_args_is_help=True, add_completion=False
)
app.add_typer(importing, name="import")


@app.command("phantom")
def phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder for the DICOM files and the three tables.")],
    preset: Annotated[
        str, typer.Option("--preset", help="tiny (8×64×64), small (32×160×128), standard (32×320×256).")
    ] = "tiny",
    patients: Annotated[int, typer.Option("--patients", help="How many; four views each.")] = 48,
    mix: Annotated[str, typer.Option("--mix", help="Class frequencies: enriched or screening.")] = "enriched",
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda; the last bits differ.")] = "cpu",
) -> None:
    """Write phantom patients as DICOM files.

    With them come the three tables of BCS-DBT.

    Example: dbtbench data phantom --preset small --patients 40 --out phantom
    """
    from dbtbench.phantom.cohort import MIXES, write_collection

    if mix not in MIXES:
        raise UsageError(f"no mix named {mix!r}", f"known: {', '.join(MIXES)}")
    write_collection(out, preset, patients, seed, MIXES[mix], device)
    typer.echo(f"{patients} patients in {out}")
    typer.echo(f"next: dbtbench data import bcs-dbt {out} --name NAME")


@importing.command("bcs-dbt")
def import_bcs_dbt(
    root: Annotated[Path, typer.Argument(help="Folder of the three tables and the DICOM files.")],
    name: Annotated[str, typer.Option("--name", help="Name of the data set.")],
    grid: Annotated[str, typer.Option("--grid", help="Slices × rows × columns.")] = "8x64x64",
    resample: Annotated[
        str, typer.Option("--resample", help="area (exact means) or torchio (the paper's way).")
    ] = "area",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split, where the tables give none.")] = 0,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
) -> None:
    """Import BCS-DBT, or anything with its tables.

    What cannot be read becomes a row of rejected.csv.

    Example: dbtbench data import bcs-dbt /data/BCS-DBT --name duke
    """
    from dbtbench.data import ingest
    from dbtbench.workspace import Workspace

    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} cannot be a data set's name", "use letters, digits, - and _")
    path = Workspace.find(workspace).datasets / name
    dataset = ingest.import_bcs_dbt(root, path, ingest.ImportSettings(_grid(grid), resample, seed), fresh)
    typer.echo(f"{name}: {len(dataset)} volumes imported, {dataset.meta['rejected']} rejected, in {path}")
    if dataset.meta["rejected"]:
        typer.echo(f"why: {path / 'rejected.csv'}")
    typer.echo(f"next: dbtbench data info --data {name}")


def _grid(text: str) -> tuple[int, int, int]:
    try:
        depth, height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"{text!r} is no grid", "write slices x rows x columns, such as 8x64x64") from None
    if min(depth, height, width) < 1:
        raise UsageError(f"{text!r} is no grid", "each size is at least 1")
    return depth, height, width


@app.command("info")
def info(data: DataOption = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Count what a data set holds, and what was rejected."""
    from dbtbench.catalogue import choose_dataset
    from dbtbench.data.summary import as_text, summarise
    from dbtbench.workspace import Workspace

    summary = summarise(choose_dataset(Workspace.find(workspace), data))
    if json:
        typer.echo(json_.dumps(summary, indent=1))
    else:
        typer.echo(as_text(summary))
