"""The board: finished evaluation runs become one CSV, the same bytes whenever it is built from the same runs.

    results/runs/TASK/HASH.json   the runs' records, copied from the workspace
    results/leaderboard.csv       long form, one row for each (board, arm, metric)

Only runs of the same task version, recipe, data and split stand on one board.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.errors import MissingError, StaleError
from dbtbench.files import atomic_path, csv_text, digest, read_json, write_text
from dbtbench.task import BASELINE
from dbtbench.workspace import Workspace

COLUMNS = [
    "board", "task", "task_version", "dataset", "dataset_fingerprint", "split_hash", "recipe_hash",
    "arm", "generator", "generator_version", "generator_run", "synthetic_fingerprint", "synthetic_volumes",
    "metric", "primary", "value", "sd", "seeds", "baseline", "gain",
    "patients", "volumes", "boxes",
    "dbtbench", "commit", "torch", "monai", "device", "seconds", "date",
]  # fmt: skip


def publish(workspace: Workspace, results: Path) -> pd.DataFrame:
    """Copy the workspace's finished runs into `results` and rebuild the CSV from all runs there.

    Raises:
        MissingError: when there is no finished run at all.
    """
    for record, copy in _unpublished(workspace, results):
        with atomic_path(copy) as temporary:
            shutil.copyfile(record, temporary)
    board = build(results)
    write_text(results / "leaderboard.csv", csv_text(board, "%.6f"))
    return board


def check(workspace: Workspace, results: Path) -> pd.DataFrame:
    """Say whether the CSV is what the runs give, and whether all of the workspace's runs are in it.

    Raises:
        StaleError: when it is not, or a run is missing.
        MissingError: when there is no run at all.
    """
    board = build(results)
    csv = results / "leaderboard.csv"
    if not csv.is_file() or csv.read_text(encoding="utf-8") != csv_text(board, "%.6f"):
        raise StaleError(f"{csv} is not what its runs give", "run `dbtbench leaderboard`")
    for record, _ in _unpublished(workspace, results):
        raise StaleError(f"{record.parent} is not on the board", "run `dbtbench leaderboard`")
    return board


def _unpublished(workspace: Workspace, results: Path) -> Iterator[tuple[Path, Path]]:
    """Records of finished runs that `results` does not hold as they are, and where they belong."""
    for record in sorted(workspace.evaluations.glob("*/*/run.json")):
        copy = results / "runs" / record.parent.parent.name / f"{record.parent.name}.json"
        if not copy.is_file() or copy.read_bytes() != record.read_bytes():
            yield record, copy


def build(results: Path) -> pd.DataFrame:
    """Build the board (`COLUMNS`) from the records in `results/runs`.

    Raises:
        MissingError: when there are none.
    """
    records = [read_json(path) for path in sorted((results / "runs").glob("*/*.json"))]
    if not records:
        raise MissingError(
            f"no finished evaluation in {results / 'runs'}", "run `dbtbench evaluate --task detection`"
        )
    return rank(records)


def rank(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The board (`COLUMNS`) of some runs' records; `none` stands first, the other arms by name."""
    arms: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        augmentation = record["augmentation"] or {"fingerprint": ""}
        arms.setdefault((_board(record), record["arm"], augmentation["fingerprint"]), []).append(record)
    rows = []
    for (board, _, _), runs in arms.items():
        rows += _rows(board, runs, arms.get((board, BASELINE, ""), []))
    table = pd.DataFrame(rows, columns=COLUMNS).assign(other=lambda t: t["arm"] != BASELINE)
    order = ["task", "board", "other", "arm", "synthetic_fingerprint", "metric"]
    return table.sort_values(order, ignore_index=True).drop(columns="other")


def _board(record: dict[str, Any]) -> str:
    """Name of the board: runs with the same name may be compared."""
    comparable = [record["task"], record["version"], record["recipe"], record["data"]["fingerprint"]]
    return (
        f"{record['task']}-{record['data']['name']}-{digest([*comparable, record['data']['split_hash']])[:8]}"
    )


def _rows(board: str, runs: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each metric of one arm; the gain is over the baseline's runs with the same seeds."""
    last = max(runs, key=lambda record: str(record["created"]))
    augmentation = last["augmentation"] or {}
    shared = {
        "board": board,
        "task": last["task"],
        "task_version": last["version"],
        "dataset": last["data"]["name"],
        "dataset_fingerprint": last["data"]["fingerprint"],
        "split_hash": last["data"]["split_hash"],
        "recipe_hash": digest(last["recipe"])[:12],
        "arm": last["arm"],
        "generator": augmentation.get("generator", ""),
        "generator_version": augmentation.get("version", ""),
        "generator_run": augmentation.get("run", ""),
        "synthetic_fingerprint": augmentation.get("fingerprint", ""),
        "synthetic_volumes": augmentation.get("volumes", 0),
        "seeds": len(runs),
        "patients": last["counts"].get("patients", ""),
        "volumes": last["counts"].get("volumes", ""),
        "boxes": last["counts"].get("boxes", ""),
        "dbtbench": last["dbtbench"],
        "commit": last["commit"] or "",
        "torch": last["versions"]["torch"],
        "monai": last["versions"]["monai"],
        "device": last["device"],
        "seconds": round(sum(record["seconds"] for record in runs), 1),
        "date": last["created"][:10],
    }
    rows = []
    for metric in last["scores"]:
        values = _by_seed(runs, metric)
        base = _by_seed(baseline, metric)
        both = values.index.intersection(base.index)
        row = {
            "metric": metric,
            "primary": int(metric == last["primary"]),
            "value": values.mean(),
            "sd": values.std(),
            "baseline": base[both].mean(),
        }
        rows.append({**shared, **row, "gain": (values[both] - base[both]).mean()})
    return rows


def _by_seed(runs: Iterable[dict[str, Any]], metric: str) -> pd.Series:
    return pd.Series({record["seed"]: record["scores"].get(metric) for record in runs}, dtype=float)


def summary(table: pd.DataFrame) -> str:
    """The boards for a terminal: a column for each arm, its mean over seeds and in brackets its gain.

    The primary metric stands first, with a star. Each synthetic data set of an arm has its own column.
    """
    lines = []
    for board, rows in table.groupby("board", sort=False):
        ambiguous = rows.groupby("arm")["synthetic_fingerprint"].nunique() > 1
        sets = [
            f" {row.synthetic_fingerprint[:6]}" if ambiguous[row.arm] else "" for row in rows.itertuples()
        ]
        cells = rows.assign(
            column=rows["arm"] + sets + " ×" + rows["seeds"].astype(str),
            cell=[_cell(row) for row in rows.itertuples()],
        )
        wide = cells.pivot_table("cell", ["primary", "metric"], "column", "first", sort=False)
        wide = wide.sort_index(ascending=[False, True])
        wide.index = [f"{'*' if primary else ' '} {metric}" for primary, metric in wide.index]
        lines += [
            f"{board} (mean over × seeds, gain in brackets)",
            wide.rename_axis(columns=None).to_string(),
            "",
        ]
    return "\n".join(lines).rstrip()


def _cell(row: Any) -> str:
    value = f"{row.value:.3f}"
    return value if row.arm == BASELINE or pd.isna(row.gain) else f"{value} ({row.gain:+.3f})"
