"""`dbtbench doctor`: what this machine has and lacks, and what to do about each lack."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from pathlib import Path

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption


def doctor(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Check what this machine has and lacks.

    Packages, decoders, GPUs, disk, workspace, plug-ins; exit 3 when one is missing.
    """
    checks = list(_checks(workspace))
    if json:
        typer.echo(json_.dumps([dict(zip(("ok", "what", "hint"), c, strict=True)) for c in checks], indent=1))
    else:
        for good, what, hint in checks:
            typer.echo(
                f"{'ok     ' if good else 'missing'} {what}" + (f"\n        hint: {hint}" if hint else "")
            )
    if not all(good for good, _, _ in checks):
        raise typer.Exit(3)


def _checks(workspace: Path | None) -> Iterator[tuple[bool, str, str]]:
    """(whether it is fine, what was looked at, what to do) for each check."""
    yield from _packages()
    yield from _decoders()
    yield from _devices()
    yield from _workspace(workspace)
    yield from _plugins()


def _packages() -> Iterator[tuple[bool, str, str]]:
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    for line in requires("dbtbench") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield False, f"{wanted}", f"pip install '{wanted}'"
            continue
        good = wanted.specifier.contains(found, prereleases=True)
        yield good, f"{wanted.name} {found}", "" if good else f"pip install '{wanted}'"


def _decoders() -> Iterator[tuple[bool, str, str]]:
    from pydicom.uid import UID

    from dbtbench.dicom.decoders import COMPRESSED, choose

    for syntax, compressed in COMPRESSED.items():
        decoder = choose(syntax)
        hint = "" if decoder else f"pip install {compressed.decoders[0].package}"
        yield (
            decoder is not None,
            f"decoder of {UID(syntax).name}: {decoder.name if decoder else 'none'}",
            hint,
        )


def _devices() -> Iterator[tuple[bool, str, str]]:
    """Look for NVIDIA's device files: importing torch takes seconds."""
    import os

    gpus = [_gpu_model(folder) for folder in sorted(Path("/proc/driver/nvidia/gpus").glob("*"))]
    gpus = gpus or ["NVIDIA GPU"] * len(list(Path("/dev").glob("nvidia[0-9]*")))
    hint = "" if gpus else "no GPU is needed for the demo; training on real data wants one"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield True, f"devices: {', '.join([*gpus, f'CPU, {cores} cores'])}", hint


def _gpu_model(folder: Path) -> str:
    """Give a GPU's model, as the driver's `information` names it."""
    try:
        lines = (folder / "information").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model")), "NVIDIA GPU")


def _workspace(workspace: Path | None) -> Iterator[tuple[bool, str, str]]:
    import shutil

    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    yield True, f"workspace: {work.root.absolute()} (from {work.origin})", ""
    there = next(p for p in (work.root.absolute(), *work.root.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    yield (
        free > 1,
        f"disk: {free:.1f} GiB free",
        "" if free > 1 else "make room, or choose another --workspace",
    )


def _plugins() -> Iterator[tuple[bool, str, str]]:
    from dbtbench import plugins
    from dbtbench.errors import DBTBenchError

    for kind in plugins.KINDS:
        for plugin in plugins.find(kind).values():
            try:
                plugins.load(plugin)
                yield True, f"{kind[:-1]} {plugin.name} ({plugin.origin})", ""
            except DBTBenchError as error:
                yield False, str(error), error.hint
