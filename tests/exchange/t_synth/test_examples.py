"""Names of folders, and the split that depends on nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from dbtbench.errors import UnreadableError
from dbtbench.exchange.t_synth.examples import (
    CONTRADICTION,
    UNKNOWN_FOLDER,
    Example,
    list_published,
    parse_folder,
)

TOP = "/data/x/device_data_VICTREPhantoms_spic_1.06/hetero/2/7.0/SIM"


def test_a_folder_says_what_it_holds() -> None:
    assert parse_folder(f"{TOP}/D2_7.0_hetero.13/13") == Example("hetero", 7.0, 1.06, 13)
    assert parse_folder(f"{TOP[8:]}/D2_7_hetero.13/13") == Example("hetero", 7.0, 1.06, 13)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        (f"{TOP}/D2_7.0_hetero.13/15", CONTRADICTION),
        (f"{TOP}/D2_5.0_hetero.13/13", CONTRADICTION),
        (f"{TOP}/D2_7.0_dense.13/13", CONTRADICTION),
        (f"{TOP}/D2_7.0_hetero.013/013", UNKNOWN_FOLDER),
        (f"{TOP}/D2_7.0_hetero.0/0", UNKNOWN_FOLDER),
        (f"{TOP}/13", UNKNOWN_FOLDER),
        (TOP.replace("hetero", "normal") + "/D2_7.0_normal.13/13", UNKNOWN_FOLDER),
        (TOP.replace("7.0", "0.0") + "/D2_0.0_hetero.13/13", UNKNOWN_FOLDER),
        (
            "/data/device_data_VICTREPhantoms_spic_1.06/20/hetero/2/7.0/SIM/D2_7.0_hetero.13/13",
            UNKNOWN_FOLDER,
        ),
        ("", UNKNOWN_FOLDER),
    ],
)
def test_another_folder_is_refused(folder: str, reason: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse_folder(folder)
    assert caught.value.reason == reason


def test_the_published_examples_are_counted_as_in_the_publication() -> None:
    examples = list(list_published())
    assert len(set(examples)) == 9000
    counts = Counter((example.breast_density, example.has_lesion) for example in examples)
    assert counts == {
        (density, lesion): number
        for density, number in {"fatty": 1350, "scattered": 1350, "hetero": 900, "dense": 900}.items()
        for lesion in (False, True)
    }


def test_a_pair_of_phantoms_is_one_patient_in_one_split() -> None:
    splits: dict[str, set[str]] = {}
    for example in list_published():
        splits.setdefault(example.patient, set()).add(example.split)
    assert all(len(split) == 1 for split in splits.values())
    assert Counter(split for (split,) in splits.values()) == {"train": 90, "validation": 15, "test": 45}
    assert Example("fatty", 5.0, 1.0, 13).patient == Example("dense", 7.0, 1.1, 14).patient
    first = [Example("fatty", 5.0, 1.0, number).split for number in (1, 3, 7)]
    assert first == ["train", "test", "validation"]  # also a small part has all of them
