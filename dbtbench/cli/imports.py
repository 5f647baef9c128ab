"""`dbtbench data import`: the verbs that turn files into a data set."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from dbtbench.cli.options import FreshOption, JsonOption, WorkspaceOption, checked_name
from dbtbench.errors import UsageError

app = typer.Typer(
    help="Turn files into a data set.", rich_markup_mode=None, no_args_is_help=True, add_completion=False
)


@app.command("bcs-dbt")
def bcs_dbt(
    root: Annotated[Path, typer.Argument(help="Folder of the three tables and the DICOM files.")],
    name: Annotated[str, typer.Option("--name", help="Name of the data set.")],
    grid: Annotated[str, typer.Option("--grid", help="Slices × rows × columns.")] = "8x64x64",
    window: Annotated[
        str, typer.Option("--window", help="dicom (the file's own), duke (the collection's reader), none.")
    ] = "dicom",
    resample: Annotated[
        str, typer.Option("--resample", help="area (means) or torchio (the paper's way).")
    ] = "area",
    exact: Annotated[
        bool, typer.Option("--exact", help="Decode every pixel, also where a reduced resolution would do.")
    ] = False,
    orientation: Annotated[
        str,
        typer.Option(
            "--orientation",
            help="How a file stored rotated is known: official (its pixels), header, stored (none is).",
        ),
    ] = "official",
    reserve: Annotated[
        float,
        typer.Option(
            "--reserve",
            help="Share of the training patients to set aside, for the arm `more-real` of evaluate.",
        ),
    ] = 0.0,
    few_lesions: Annotated[
        int | None,
        typer.Option(
            "--few-lesions",
            metavar="N",
            help="Keep N training patients with lesions and all without; the others with lesions are set "
            "aside, too.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split, where the tables give none.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes; one per core by default. 1: all in this process.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="tcp://HOST:PORT", help="Use a Dask cluster's workers.")
    ] = None,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
    json: JsonOption = False,
) -> None:
    """Import BCS-DBT, or anything with its tables.

    The report counts every row of the tables: imported, rejected for a reason, or not downloaded. Killed at
    any moment, the same command continues. When more files were downloaded, it adds them.

    Example: dbtbench data import bcs-dbt /data/BCS-DBT --name duke
    """
    from joblib import cpu_count

    from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
    from dbtbench.exchange.engine import ImportSettings
    from dbtbench.runtime.pool import Pool
    from dbtbench.workspace import Workspace

    path = Workspace.find(workspace).datasets / checked_name(name)
    settings = ImportSettings(_grid(grid), resample, window, exact, seed, reserve, orientation, few_lesions)
    with Pool(cpu_count() if jobs is None else jobs, dask) as pool:
        dataset = import_bcs_dbt(root, path, settings, pool, fresh)
    print_report(dataset.meta["import_report"], path, json)


@app.command("t-synth")
def t_synth(
    root: Annotated[Path, typer.Argument(help="Folder of device_data_VICTREPhantoms_spic_…, or one inside.")],
    name: Annotated[str, typer.Option("--name", help="Name of the data set.")] = "t-synth",
    grid: Annotated[str, typer.Option("--grid", help="Slices × rows × columns.")] = "8x64x64",
    reserve: Annotated[
        float,
        typer.Option(
            "--reserve",
            help="Share of the training phantoms to set aside, for the arm `more-real` of evaluate.",
        ),
    ] = 0.0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes; one per core by default. 1: all in this process.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="tcp://HOST:PORT", help="Use a Dask cluster's workers.")
    ] = None,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
    json: JsonOption = False,
) -> None:
    """Import T-SYNTH, simulated DBT with masses; CC0, so anyone may use it.

    Any part of the collection will do. The report counts all of its 9,000 examples: imported, rejected for a
    reason, or not downloaded. Killed at any moment, the same command continues; it also adds what came later.

    Example: dbtbench data import t-synth /data/T-SYNTH
    """
    from joblib import cpu_count

    from dbtbench.exchange.t_synth.ingest import import_t_synth
    from dbtbench.runtime.pool import Pool
    from dbtbench.workspace import Workspace

    path = Workspace.find(workspace).datasets / checked_name(name)
    with Pool(cpu_count() if jobs is None else jobs, dask) as pool:
        dataset = import_t_synth(root, path, _grid(grid), pool, fresh, reserve)
    print_report(dataset.meta["import_report"], path, json)


@app.command("volumes")
def volumes(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the volumes.")],
    name: Annotated[str, typer.Option("--name", help="Name of the synthetic data set.")],
    data: Annotated[str, typer.Option("--data", help="The real data set that they are to augment.")],
    boxes: Annotated[
        Path | None, typer.Option("--boxes", help="Table of boxes; FOLDER/boxes.csv if it is there.")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Table of volumes; FOLDER/volumes.csv if it is there.")
    ] = None,
    derived: Annotated[
        bool,
        typer.Option("--derived", help="They are changed training volumes, as of classic augmentation."),
    ] = False,
    full_scale: Annotated[
        float | None,
        typer.Option(
            "--full-scale",
            help="The value that becomes 1, such as 1023; 1 by default, and the type's largest whole number.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
    json: JsonOption = False,
) -> None:
    """Import volumes that were made elsewhere: NIfTI, NPZ, NPY, MAT or DICOM.

    They become a synthetic data set on the real one's grid, for `evaluate --aug NAME`. The split is taken on
    trust: you state that the maker of these volumes saw the real data set's training split only.

    Example: dbtbench data import volumes my-gan --name my-gan --data duke --boxes boxes.csv
    """
    from dbtbench.exchange.volumes.ingest import TRUST, import_samples
    from dbtbench.pipeline.catalogue import check_synthetic_name, choose_dataset
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    path = work.datasets / checked_name(name)
    check_synthetic_name(path)
    dataset = import_samples(root, path, choose_dataset(work, data), boxes, cases, fresh, derived, full_scale)
    typer.echo(f"{TRUST} {data}", err=json)
    print_report(dataset.meta["import_report"], path, json)
    if not json:
        typer.echo(f"then: dbtbench evaluate --task detection --aug {name} --data {data}")


def print_report(report: dict[str, Any], path: Path, json: bool) -> None:
    """Print an import report, as text or as JSON."""
    if json:
        typer.echo(json_.dumps(report, indent=1))
        return
    from dbtbench.data.summary import report_lines
    from dbtbench.runtime.text import one_line

    for line in report_lines(report):
        typer.echo(one_line(line))
    if report["rows"] > report["imported"]:
        typer.echo(f"row by row: {path / 'rejected.csv'}")
    typer.echo(f"next: dbtbench data info --data {path.name}")


def _grid(text: str) -> tuple[int, int, int]:
    try:
        depth, height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"{text!r} is no grid", "write slices x rows x columns, such as 8x64x64") from None
    if min(depth, height, width) < 1:
        raise UsageError(f"{text!r} is no grid", "each size is at least 1")
    return depth, height, width
