"""The folder that holds everything that dbtbench makes."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from dbtbench.errors import MissingError, UsageError

SETTINGS = "dbtbench.toml"
VARIABLE = "DBTBENCH_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """The folder that holds data sets, generator runs, evaluation runs and results.

    Attributes:
        root: the folder.
        origin: what decided it: the flag, the settings file, the environment or the default.
    """

    root: Path
    origin: str

    def __init__(self, root: str | Path, origin: str = "--workspace") -> None:
        object.__setattr__(self, "root", Path(root))
        object.__setattr__(self, "origin", origin)

    @classmethod
    def find(cls, flag: str | Path | None = None) -> Workspace:
        """Decide the folder: `--workspace`, then `dbtbench.toml`, then the environment, then the default.

        Raises:
            UsageError: when `dbtbench.toml` cannot be read.
        """
        if flag is not None:
            return cls(flag)
        settings = Path(SETTINGS)
        if settings.is_file():
            try:
                named = tomllib.loads(settings.read_text(encoding="utf-8")).get("workspace")
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UsageError(
                    f"{SETTINGS} cannot be read: {error}", 'write: workspace = "FOLDER"'
                ) from error
            if named is not None:
                return cls(Path(str(named)).expanduser(), SETTINGS)
        if named := os.environ.get(VARIABLE):
            return cls(Path(named).expanduser(), VARIABLE)
        return cls(Path("dbtbench-work"), "default")

    @property
    def datasets(self) -> Path:
        """Folder of the data sets, real and synthetic."""
        return self.root / "datasets"

    @property
    def generators(self) -> Path:
        """Folder of the generators' training runs."""
        return self.root / "generators"

    @property
    def evaluations(self) -> Path:
        """Folder of the evaluation runs."""
        return self.root / "evaluations"

    def dataset_names(self) -> list[str]:
        """Names of the finished data sets, sorted."""
        return sorted(path.parent.name for path in self.datasets.glob("*/dataset.json"))

    def dataset_path(self, name: str) -> Path:
        """Folder of a finished data set.

        Raises:
            MissingError: when there is none of that name.
        """
        names = self.dataset_names()
        if name not in names:
            known = ", ".join(names) or "none yet"
            raise MissingError(
                f"no data set named {name!r} in {self.root}",
                f"known: {known}; make one with `dbtbench data import bcs-dbt ROOT --name {name}`",
            )
        return self.datasets / name
