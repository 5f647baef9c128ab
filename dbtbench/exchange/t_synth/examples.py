"""The examples of T-SYNTH: how their folders name them, and which of them were published.

…/device_data_VICTREPhantoms_spic_[MASS DENSITY]/[BREAST DENSITY]/2/[RADIUS]/SIM/D2_[RADIUS]_[BREAST DENSITY].[ID]/[ID]/
    reconstruction[ID].raw, reconstruction[ID].mhd, and with a lesion reconstruction[ID].loc
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from dbtbench.errors import UnreadableError

BREAST_DENSITIES = ("fatty", "scattered", "hetero", "dense")
MASS_DENSITIES = (1.0, 1.06, 1.1)
MASS_RADII = (5.0, 7.0, 9.0)
TOO_LARGE = {("hetero", 9.0), ("dense", 9.0)}
"""Breast density and mass radius of which nothing was published."""
LAST_ID = 300
PATTERN = ("train", "test", "train", "validation", "train", "test", "train", "train", "test", "train")
"""Splits of ten successive pairs of phantoms: 60 : 10 : 30, also for the first few that one downloads."""

UNKNOWN_FOLDER = "not a folder of T-SYNTH"
CONTRADICTION = "folder names contradict each other"

NUMBER = r"\d{1,3}(?:\.\d{1,3})?"
ID = r"[1-9]\d{0,5}"
FOLDER = re.compile(
    rf"(?:.*/)?device_data_VICTREPhantoms_spic_(?P<mass_density>{NUMBER})/(?P<density>[a-z]+)/2/(?P<radius>{NUMBER})"
    rf"/SIM/D2_(?P<radius_again>{NUMBER})_(?P<density_again>[a-z]+)\.(?P<id>{ID})/(?P<id_again>{ID})",
    re.ASCII | re.DOTALL,
)


@dataclass(frozen=True, order=True)
class Example:
    """One simulated acquisition.

    Phantoms 2k-1 and 2k count as one patient, in every cohort: whether a lesion-free breast is one of those
    that have a mass elsewhere is not published, so that all that may be the same breast stays together.

    Attributes:
        breast_density: one of `BREAST_DENSITIES`.
        mass_radius: mm, of the cohort.
        mass_density: of the cohort, relative to fibroglandular tissue.
        number: ID of the phantom; an odd one has a mass.
    """

    breast_density: str
    mass_radius: float
    mass_density: float
    number: int

    @property
    def has_lesion(self) -> bool:
        """True when a mass was put into the breast."""
        return self.number % 2 == 1

    @property
    def patient(self) -> str:
        """The pair of phantoms, as PatientID."""
        first = self.number - (1 - self.number % 2)
        return f"phantoms-{first:03d}-{first + 1:03d}"

    @property
    def study(self) -> str:
        """Cohort and ID, as StudyUID."""
        return f"{self.breast_density}-{self.mass_radius}-{self.mass_density}-{self.number:03d}"

    @property
    def split(self) -> str:
        """The split of the pair, which depends on the ID only."""
        return PATTERN[(self.number - 1) // 2 % len(PATTERN)]

    @property
    def axes(self) -> dict[str, str | float]:
        """The columns of cases.csv that name the cohort."""
        return {
            "breast_density": self.breast_density,
            "mass_radius_mm": self.mass_radius,
            "mass_density": self.mass_density,
        }


def list_published() -> Iterator[Example]:
    """List the 9,000 examples: 300 for each of 30 cohorts."""
    for density, radius, mass_density in product(BREAST_DENSITIES, MASS_RADII, MASS_DENSITIES):
        if (density, radius) not in TOO_LARGE:
            for number in range(1, LAST_ID + 1):
                yield Example(density, radius, mass_density, number)


def parse_folder(path: str) -> Example:
    """Read what a folder holds from the names that lead to it.

    Args:
        path: with slashes; what precedes `device_data_…` does not matter.

    Raises:
        UnreadableError: when it is no folder of an example.
    """
    match = FOLDER.fullmatch(path)
    if match is None or match["density"] not in BREAST_DENSITIES:
        raise UnreadableError(UNKNOWN_FOLDER)
    radius, mass_density = float(match["radius"]), float(match["mass_density"])
    if not radius or not mass_density:
        raise UnreadableError(UNKNOWN_FOLDER)
    again = match["density_again"], float(match["radius_again"]), match["id_again"]
    if again != (match["density"], radius, match["id"]):
        raise UnreadableError(CONTRADICTION)
    return Example(match["density"], radius, mass_density, int(match["id"]))
