"""The reader of BCS-DBT, and of anything with its three tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.exchange.bcs_dbt.finding import find_files
from dbtbench.exchange.bcs_dbt.header_cache import HeaderCache
from dbtbench.exchange.bcs_dbt.identity import compare_files
from dbtbench.exchange.bcs_dbt.tables import read_tables
from dbtbench.exchange.engine import ImportSettings, import_collection
from dbtbench.runtime.files import read_json, short_digest
from dbtbench.runtime.pool import Pool


def import_bcs_dbt(
    root: Path, path: Path, settings: ImportSettings, pool: Pool | None = None, fresh: bool = False
) -> DBTDataset:
    """Import a collection; volumes that an earlier call read are kept, and new files are added.

    Args:
        root: the folder of the three tables and the images.
        path: where the data set will lie; its name is the folder's.
        settings: of the import.
        pool: the workers; they must see `root` and `path` under the same names.
        fresh: import everything again.

    Raises:
        MissingError: when the tables are not there or no volume can be read.
        UsageError: when the tables or phantom.json cannot be used, or the name is another data set's.
        DBTBenchError: when the disk is full (`DatasetWriter`); the same call continues.
    """
    root, path, pool = root.resolve(), path.resolve(), pool or Pool()
    with HeaderCache(path.with_name(f".{short_digest(str(root))}.headers.json")) as cache:
        find, compare = (partial(look, root, pool=pool, cache=cache) for look in (find_files, compare_files))
        return import_collection(
            read_tables(root),
            root,
            path,
            settings,
            pool,
            fresh,
            kind="bcs-dbt",
            find_files=find,
            compare_files=compare,
            described=_describe_phantom(root),
        )


def _describe_phantom(root: Path) -> dict[str, dict[str, Any]]:
    """Describe the phantom that wrote a collection, for dataset.json; version 1 was not recorded.

    Raises:
        UsageError: when phantom.json is there, and has no version.
    """
    path = root / "phantom.json"
    if not path.is_file():
        return {}
    try:
        version = int(read_json(path)["version"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} has no version of the phantom that wrote the collection",
            "write the collection again; remove the file if it is no phantom's",
        ) from error
    return {"phantom": {"version": version}} if version > 1 else {}
