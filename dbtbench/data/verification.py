"""The comparison of a data set's files with the digests that were written when it was finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.errors import DBTBenchError, explain_file_error
from dbtbench.runs import matches_digest
from dbtbench.runtime.files import digest

TABLES = ("cases.csv", "boxes.csv")
WITHOUT_VOLUMES = "without_volumes"
"""The key, in `split` of dataset.json, of the patients of the split who have no volume in the data set, with
their splits. With those of cases.csv they are the whole split."""
OF_REJECTED = "whoever rejected.csv should list"


def content_fingerprint(grid: Sequence[int], intensity: Mapping[str, Any], cases: str, boxes: str) -> str:
    """SHA-256 of what a data set holds.

    Args:
        grid: slices, rows, columns.
        intensity: how values became intensities, from `dataset.json`.
        cases: text of cases.csv, which has each volume's own SHA-256.
        boxes: text of boxes.csv.
    """
    return digest({"grid": list(grid), "intensity": intensity, "cases": cases, "boxes": boxes})


def split_digest(splits: Mapping[str, str]) -> str:
    """Compute the SHA-256 of `{PatientID: split}`."""
    return digest(dict(splits))


def compare_tables(folder: Path, meta: Mapping[str, Any]) -> str:
    """Compare grid, intensity and the tables with the fingerprint.

    Args:
        folder: the data set's.
        meta: its dataset.json.

    Returns:
        How they differ; empty when they do not, and for a table that the system does not let be read.
    """
    try:
        texts = [(folder / name).read_bytes().decode() for name in TABLES]
        found = content_fingerprint(meta["grid"], meta["intensity"], *texts)
    except (OSError, ValueError) as error:
        if is_of_system(error):
            return ""
        return f"the fingerprint cannot be recomputed: {error}"
    if found == meta["fingerprint"]:
        return ""
    return f"dataset.json has the fingerprint {meta['fingerprint'][:12]}, the tables give {found[:12]}"


def compare_description(meta: Mapping[str, Any]) -> str:
    """Compare all that dataset.json says with its own digest; data sets of early versions have none.

    Returns:
        How they differ; empty when they do not.
    """
    return "" if matches_digest(meta) else "it does not match its digest"


def compare_split(
    meta: Mapping[str, Any], cases: pd.DataFrame, read_rejected: Callable[[], pd.DataFrame]
) -> str:
    """Compare the patients and their splits with the split's hash.

    A synthetic data set has the hash of the real one that its generator saw.

    Args:
        meta: dataset.json.
        cases: cases.csv.
        read_rejected: reads rejected.csv.

    Returns:
        How they differ; empty when they do not, for a data set that no import made, and where a patient's
        split is not known (`list_unknown`).
    """
    recorded, source = meta["split"]["hash"], meta["source"]
    if source["kind"] == "synthetic":
        seen = source.get("data", {}).get("split_hash", recorded)
        differs = seen != recorded
        return f"its generator saw the split {seen[:12]}, dataset.json has {recorded[:12]}" if differs else ""
    made_by_import = meta.get("import_report") is not None or WITHOUT_VOLUMES in meta["split"]
    if not made_by_import or list_unknown(meta, cases, read_rejected):
        return ""
    own = dict(zip(cases["PatientID"], cases["split"], strict=True))
    found = split_digest(own | meta["split"].get(WITHOUT_VOLUMES, {}))
    if found == recorded:
        return ""
    return f"two splits: dataset.json has the hash {recorded[:12]}, cases.csv gives {found[:12]}"


def list_unknown(
    meta: Mapping[str, Any], cases: pd.DataFrame, read_rejected: Callable[[], pd.DataFrame]
) -> list[str]:
    """List the patients of a real data set's import who have no volume in it, and whose split is not known.

    Data sets of early versions do not have their splits. Arguments are those of `compare_split`.
    """
    report = meta.get("import_report")
    if meta["source"]["kind"] == "synthetic" or report is None or WITHOUT_VOLUMES in meta["split"]:
        return []
    try:
        rejected = read_rejected()
    except DBTBenchError:
        return [OF_REJECTED]
    volumes = rejected[rejected["table"] != "boxes"]
    if len(volumes) < sum(report["rejected"].values()) + report["missing"]:
        return [OF_REJECTED]
    return sorted(set(volumes["PatientID"].dropna()) - set(cases["PatientID"]))


def remedy(folder: Path) -> str:
    """Say what to do about a data set that is not what it was when it was finished."""
    return f"`dbtbench data check --data {folder.name}` lists what is wrong; make it again with --fresh"


def is_of_system(error: Exception) -> bool:
    """Test whether it is the system that keeps a file from being read: permission, disk, too many open files.

    A file that is missing or damaged is made whole by making the data set again; this is not.
    """
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)


def explain_unread(folder: Path, error: OSError | ValueError) -> DBTBenchError:
    """Say what the system reports of a data set's files, or else why they are none."""
    explained = explain_file_error(error) if isinstance(error, OSError) and is_of_system(error) else None
    return explained or DBTBenchError(f"{folder} is not a data set: {error}", "import it again")
