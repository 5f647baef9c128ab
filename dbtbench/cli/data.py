"""`dbtbench data`: make, import and look at data sets."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli import imports
from dbtbench.cli.options import DataOption, JsonOption, WorkspaceOption

app = typer.Typer(
    help="Make, import and look at data sets.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(imports.app, name="import")


@app.command("phantom")
def phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder for the DICOM files and the three tables.")],
    preset: Annotated[
        str, typer.Option("--preset", help="tiny (8×64×64), small (32×160×128), standard (32×320×256).")
    ] = "tiny",
    patients: Annotated[
        int, typer.Option("--patients", help="Number of patients, with four views each.")
    ] = 48,
    mix: Annotated[
        str,
        typer.Option("--mix", help="Shares of labels: enriched, screening, or as normal=0.5,cancer=0.5."),
    ] = "enriched",
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything.")] = 0,
    density: Annotated[
        str | None, typer.Option("--density", help="Shares of BI-RADS densities, as b=0.5,c=0.5.")
    ] = None,
    dose: Annotated[
        str | None, typer.Option("--dose", help="Dose relative to the scanner's usual one, as 0.5=1,1=1.")
    ] = None,
    conspicuity: Annotated[
        str | None,
        typer.Option("--conspicuity", help="Density of lesions, in multiples of the physical one, as 1.5."),
    ] = None,
    lesion_size: Annotated[
        str | None,
        typer.Option("--lesion-size", help="Root of the box's width times height in mm, as 8=1,16=1."),
    ] = None,
    lesion_kind: Annotated[
        str | None,
        typer.Option("--lesion-kind", help="Shares of mass, spiculated and distortion."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write phantom patients as DICOM files.

    With them come the three tables of BCS-DBT, and a fourth with density, dose and lesion of every volume,
    which the import carries into cases.csv. An axis is one value, or values with their shares of patients.

    Example: dbtbench data phantom --preset small --patients 40 --density b=0.5,c=0.5 --out phantom
    """
    from dbtbench.phantom.axes import parse_shares
    from dbtbench.phantom.cohort import MIXES, write_collection

    given = {
        "density": density,
        "dose": dose,
        "conspicuity": conspicuity,
        "lesion_size": lesion_size,
        "lesion_kind": lesion_kind,
    }
    axes = {name: parse_shares(name, text) for name, text in given.items() if text is not None}
    shares = MIXES[mix] if mix in MIXES else parse_shares("mix", mix)
    write_collection(out, preset, patients, seed, shares, axes=axes)
    if json:
        typer.echo(json_.dumps({"patients": patients, "preset": preset, "out": str(out)}, indent=1))
        return
    typer.echo(f"{patients} patients in {out}")
    typer.echo(f"next: dbtbench data import bcs-dbt {out} --name NAME")


@app.command("info")
def info(
    data: DataOption = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE", help="Draw a few dozen of its volumes: .png, .jpg, .pdf or .svg."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Count what a data set holds, and what was rejected.

    Example: dbtbench data info --data duke --sheet duke.png
    """
    from dbtbench.data.summary import as_text, summarise
    from dbtbench.pipeline.catalogue import choose_dataset
    from dbtbench.workspace import Workspace

    if sheet is not None:
        from dbtbench.figures.canvas import check_suffix

        check_suffix(sheet)
    dataset = choose_dataset(Workspace.find(workspace), data)
    summary = summarise(dataset)
    if sheet is not None:
        from dbtbench.figures.contact_sheet import draw_contact_sheet

        draw_contact_sheet(dataset, sheet)
    typer.echo(json_.dumps(summary, indent=1) if json else as_text(summary))
    if sheet is not None and not json:
        typer.echo(f"contact sheet: {sheet}")


@app.command("check")
def check(data: DataOption = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Verify a data set: its volumes, tables, boxes, split and import report.

    Prints one line per check. Exits with 1 when a check fails.
    """
    from dbtbench.data.check import as_text, check_dataset
    from dbtbench.pipeline.catalogue import choose_path
    from dbtbench.workspace import Workspace

    path = choose_path(Workspace.find(workspace), data)
    checks = check_dataset(path)
    ok = all(check.ok for check in checks)
    if json:
        found = [{"check": c.name, "ok": c.ok, "problems": c.problems, "first": c.first} for c in checks]
        typer.echo(json_.dumps({"name": path.name, "path": str(path), "ok": ok, "checks": found}, indent=1))
    else:
        typer.echo(as_text(path.name, checks))
    if not ok:
        raise typer.Exit(1)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; new, or this export's own.")],
    format_: Annotated[str, typer.Option("--format", help="dicom, nifti or npz.")],
    data: DataOption = None,
    split: Annotated[str | None, typer.Option("--split", help="Only train, validation or test.")] = None,
    boxes: Annotated[
        str,
        typer.Option(
            "--boxes",
            help="Boxes as files for viewers, with commas: labelmap, markups; beside DICOM sr, seg.",
        ),
    ] = "",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write a data set's volumes as files that other programs read.

    With them come volumes.csv and boxes.csv, and for DICOM the three tables of BCS-DBT. Viewers show boxes as
    label maps (NIfTI), markups (3D Slicer), structured reports and segmentations (DICOM SR, SEG; they need
    the extra dbtbench[viewers]). Killed at any moment, the same command continues.

    Example: dbtbench data export --data ddpm-duke-1a2b3c4d --format nifti --out volumes
    """
    from dbtbench.exchange.export import export_dataset
    from dbtbench.pipeline.catalogue import choose_dataset
    from dbtbench.workspace import Workspace

    dataset = choose_dataset(Workspace.find(workspace), data)
    files = export_dataset(dataset, out, format_, split, [name.strip() for name in boxes.split(",") if name])
    volumes = len(dataset if split is None else dataset.select(split))
    if json:
        typer.echo(json_.dumps({"volumes": volumes, "files": len(files), "out": str(out)}, indent=1))
        return
    typer.echo(f"{dataset.name}: {volumes} volumes, {len(files)} files in {out}")
    real = dataset.meta["source"]["data"]["name"] if dataset.synthetic else dataset.name
    typer.echo(f"to bring them back: dbtbench data import volumes {out} --name NAME --data {real}")
