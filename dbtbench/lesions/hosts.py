"""Hosts: the lesion-free training volumes that generators put lesions into."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.geometry.views import Boxes, laterality, mirror_boxes, projection
from dbtbench.lesions.places import Background


class HostReader:
    """Reads training volumes as left breasts.

    Args:
        train: the training split.
        generator: name of the generator that needs hosts, for errors.

    Attributes:
        cases: the split's table by `case`.
        views: projection of each case.
        normal: of each case, whether it can be a host: label normal and no boxes.
    """

    def __init__(self, train: DBTDataset, generator: str) -> None:
        self.train, self.generator = train, generator
        self.cases = train.cases.set_index("case")
        self.views = self.cases["View"].map(projection)
        self.normal: NDArray[np.bool_] = np.asarray(
            (self.cases["label"] == "normal").to_numpy() & ~train.positive
        )

    def check(self) -> None:
        """Check that every layout will have a host: for one with lesions, of another patient.

        Raises:
            UsageError: when one has none.
        """
        patients = self.cases["PatientID"]
        for kind, patient in zip(self.views, patients.where(self.train.positive, None), strict=True):
            if not (self.normal & (self.views == kind) & (patients != patient)).any():
                raise self._lack_hosts(str(kind))

    def read(self, case: int) -> tuple[Background, Boxes]:
        """Read a training volume and its boxes, mirrored where it is a right breast."""
        row = self.cases.loc[case]
        volume, boxes = self.train.volumes([case])[0, 0], self.train.boxes_of(case)
        if laterality(str(row["View"])) == "r":
            volume = np.ascontiguousarray(volume[..., ::-1])
            boxes = mirror_boxes(boxes, self.train.grid[2])
        return Background.of(volume, projection(str(row["View"])), str(row["PatientID"])), boxes

    def read_host(self, layout: Layout) -> Background:
        """Read a layout's host.

        Raises:
            UsageError: when it has none.
        """
        if layout.host is None:
            raise self._lack_hosts(projection(layout.view))
        return self.read(layout.host)[0]

    def _lack_hosts(self, kind: str) -> UsageError:
        return UsageError(
            f"{self.train.name} has too few lesion-free training volumes of the projection {kind} (label "
            f"normal, no box): {self.generator} needs one of another patient for each lesion",
            "import the data with their normal cases, or with a larger share for training",
        )
