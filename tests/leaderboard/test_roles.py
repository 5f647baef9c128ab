"""Roles of arms, found in their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbtbench.leaderboard.roles import Roles
from dbtbench.records import Record

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def roles(make_record: Make) -> Callable[..., Roles]:
    """Roles of arms with these names, each with changes to its synthetic data."""

    def of(*names: str, **changes: dict[str, Any]) -> Roles:
        records = {}
        for name in names:
            record = make_record(name)
            if record["augmentation"]:
                own = dict(changes.get(name.split(":")[0], {}))
                record |= {key: own.pop(key) for key in ("learned", "chosen") if key in own}
                record["augmentation"] = record["augmentation"] | own
            records[name] = Record.model_validate(record)
        return Roles.of(records)

    return of


def test_the_baseline_the_ceiling_and_the_curve_are_of_real_data(roles: Callable[..., Roles]) -> None:
    found = roles("real", "oversample", "ddpm", "more-real:0.5", "more-real")
    assert found.baseline == ("real", "oversample")
    assert found.ceiling == "more-real"
    assert found.augmentations == ("ddpm",)
    assert found.volumes == {"real": 12, "more-real:0.5": 48, "more-real": 48}
    assert found.sizes == {"patients": {}, "lesions": {}}
    assert roles("real", "more-real:0.5").ceiling is None


def test_controls_are_no_claims_and_belong_to_their_arm(roles: Callable[..., Roles]) -> None:
    found = roles("real", "ddpm", "ddpm:2", "ddpm:2:shuffled-boxes")
    assert found.augmentations == ("ddpm", "ddpm:2")
    assert found.controls["ddpm:2"] == {"shuffled-boxes": "ddpm:2:shuffled-boxes"}
    assert found.controls["ddpm"] == {}


def test_of_two_controls_of_the_same_name_the_one_with_the_same_volumes_counts(make_record: Make) -> None:
    records = {}
    for digit in "ab":
        for arm in ("ddpm", "ddpm:shuffled-boxes"):
            record = make_record(arm)
            record["augmentation"] = record["augmentation"] | {"fingerprint": digit * 64}
            records[f"{arm} {digit}"] = Record.model_validate(record)
    found = Roles.of(records)
    assert found.controls["ddpm a"] == {"shuffled-boxes": "ddpm:shuffled-boxes a"}
    assert found.controls["ddpm b"] == {"shuffled-boxes": "ddpm:shuffled-boxes b"}
    assert found.trainings == {}


def test_what_learns_nothing_is_what_its_generator_declared_and_no_matter_of_names(
    roles: Callable[..., Roles],
) -> None:
    found = roles(
        *("real", "mine", "classic", "ddpm", "old"),
        mine={"learned": False},
        classic={"learned": True},
        ddpm={"learned": False, "generator": "paste"},
    )
    assert found.unlearned == ("mine", "ddpm")


def test_arms_that_differ_by_the_seed_of_a_training_are_trainings_of_one_generator(
    roles: Callable[..., Roles],
) -> None:
    names = ("real", "ddpm", "ddpm:shuffled-boxes", "second", "second:shuffled-boxes", "other")
    second = {"generator": "ddpm", "run": "f" * 12, "recipe": {"steps": 9, "seed": 1}}
    found = roles(*names, second=second, other=second | {"recipe": {"steps": 8}})
    assert found.trainings == {
        "ddpm (2 trainings)": [("ddpm", 0), ("second", 1)],
        "ddpm:shuffled-boxes (2 trainings)": [("ddpm:shuffled-boxes", 0), ("second:shuffled-boxes", 1)],
    }
    assert found.augmentations == ("other", "ddpm (2 trainings)")
    assert found.controls["ddpm (2 trainings)"] == {"shuffled-boxes": "ddpm:shuffled-boxes (2 trainings)"}
    assert roles("real", "ddpm", "copy", copy={"generator": "ddpm"}).trainings == {}


def test_trainings_are_called_what_their_arms_are_called(roles: Callable[..., Roles]) -> None:
    names = ("real", "ddpm-0", "ddpm-1", "inpaint_0", "inpaint_1", "mode", "model")
    made = {
        name: {"generator": "ddpm", "run": f"{place:012}", "recipe": {"steps": steps, "seed": place}}
        for place, (name, steps) in enumerate(zip(names[1:], (9, 9, 8, 8, 7, 7), strict=True))
    }
    assert {*roles(*names, **made).trainings} == {
        *("ddpm (2 trainings, recipe 7aa3e0)", "inpaint (2 trainings)"),
        "ddpm (2 trainings, recipe 93d5a9)",
    }


def test_a_setting_that_the_generator_chose_itself_does_not_part_its_trainings(
    roles: Callable[..., Roles],
) -> None:
    first = {"recipe": {"steps": 9, "seed": 0, "guidance_scale": 2.5}, "chosen": ["guidance_scale"]}
    second = {"generator": "ddpm", "run": "f" * 12, "recipe": {"steps": 9, "seed": 1, "guidance_scale": 2.6}}
    found = roles("real", "ddpm", "second", ddpm=first, second=second | {"chosen": ["guidance_scale"]})
    assert [*found.trainings] == ["ddpm (2 trainings)"]
    asked = first | {"chosen": None}
    assert roles("real", "ddpm", "second", ddpm=asked, second=second).trainings == {}


def test_counts_of_patients_and_lesions_are_the_curves_sizes(make_record: Make) -> None:
    records = {}
    for arm, n in (("real", 6), ("more-real", 24)):
        record = make_record(arm)
        record["counts"] = record["counts"] | {"training_patients": n, "training_lesions": 2 * n}
        records[arm] = Record.model_validate(record)
    sizes = Roles.of(records).sizes
    assert sizes == {"patients": {"real": 6, "more-real": 24}, "lesions": {"real": 12, "more-real": 48}}


def test_an_arm_of_several_generators_is_a_claim_of_its_own(make_record: Make) -> None:
    one = Record.model_validate(make_record("classic", learned=False))
    other = Record.model_validate(make_record("ddpm", learned=True))
    both = [one.augmentation, other.augmentation]
    joined = one.model_copy(update={"arm": "classic+ddpm", "augmentation": both, "learned": True})
    found = Roles.of({"classic": one, "ddpm": other, "classic+ddpm": joined})
    assert found.unlearned == ("classic",)
    assert found.augmentations == ("classic", "ddpm", "classic+ddpm")


def test_an_arm_that_trains_on_nothing_is_a_reference(make_record: Make) -> None:
    real = Record.model_validate(make_record())
    found = Roles.of({"real": real, "chance": real.model_copy(update={"arm": "chance"})})
    assert (found.references, found.baseline, found.augmentations) == (("chance",), ("real",), ())
