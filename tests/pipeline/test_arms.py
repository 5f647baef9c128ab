from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.geometry.views import laterality, mirror_boxes
from dbtbench.pipeline import generate
from dbtbench.pipeline.arms import default_arms, make_arm, with_shuffled_boxes
from dbtbench.task import ARMS_OF_REAL, CONTROLS, REFERENCES, RENAMED, ArmName
from dbtbench.tasks.detection import Detection
from dbtbench.workspace import Workspace

MakeToy = Callable[..., DBTDataset]
DRAWN = 12


@pytest.fixture
def work(tmp_path: Path, toy: DBTDataset) -> Workspace:
    work = Workspace(tmp_path)
    generate.draw(work, generate.fit(work, "classic", toy), n=DRAWN)
    return work


@pytest.fixture
def reserved(toy: DBTDataset) -> DBTDataset:
    """The toy with its validation patients as a reserve."""
    return replace(toy, cases=toy.cases.replace({"split": {"validation": "reserve"}}))


def test_the_floor_trains_on_the_training_split_alone(work: Workspace, toy: DBTDataset) -> None:
    arm = make_arm(work, "real", toy)
    assert set(arm.train.cases["split"]) == {"train"}
    assert (arm.added, arm.synthetic) == ((), ())
    train = toy.select("train")
    patients = train.cases["PatientID"].nunique()
    assert arm.counts == {
        **{"training_real": len(train), "training_synthetic": 0},
        **{"training_patients": patients, "training_lesions": len(train.boxes)},
    }
    assert 0 < patients < len(train)
    assert len(train.boxes) > 0


def test_a_second_draw_of_the_floor_is_no_arm_any_more(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="second draw of real") as error:
        make_arm(work, "oversample", toy)
    assert "normals-only" in error.value.hint


def test_an_augmentation_adds_all_or_so_many_synthetic_volumes(work: Workspace, toy: DBTDataset) -> None:
    n = len(toy.select("train"))
    counts = make_arm(work, "classic", toy).counts
    assert counts == make_arm(work, "real", toy).counts | {"training_synthetic": DRAWN}
    ratio = 4 / n
    few = make_arm(work, f"classic:{ratio:.6f}", toy)
    assert [list(drawn.cases["case"]) for drawn in few.synthetic] == [[0, 1, 2, 3]]
    with pytest.raises(MissingError, match=f"has 12 volumes where {2 * n} are wanted") as error:
        make_arm(work, "classic:2", toy)
    assert f"--n {2 * n}" in error.value.hint


def test_synthetic_volumes_alone(work: Workspace, toy: DBTDataset) -> None:
    arm = make_arm(work, "classic:synthetic-only", toy)
    assert arm.train.synthetic
    assert arm.added == ()
    nothing = dict.fromkeys(("training_real", "training_patients", "training_lesions"), 0)
    assert arm.counts == nothing | {"training_synthetic": DRAWN}


def test_shuffled_boxes_are_those_of_another_volume_mirrored_to_its_side(
    work: Workspace, toy: DBTDataset
) -> None:
    (kept,), (shuffled,) = (make_arm(work, f"classic{end}", toy).added for end in ("", ":shuffled-boxes"))
    assert set(kept.boxes["case"]) == set(shuffled.boxes["case"])
    views = kept.cases.set_index("case")["View"]
    owners = list(zip(kept.boxes["case"], shuffled.boxes["case"], strict=True))
    crossed = [laterality(views[old]) != laterality(views[new]) for old, new in owners]
    assert all(old != new for old, new in owners)
    assert 0 < sum(crossed) < len(crossed)
    before, after = (table.boxes[GRID_BOX].to_numpy(np.float32) for table in (kept, shuffled))
    for row, across in enumerate(crossed):
        expected = mirror_boxes(before[row : row + 1], toy.grid[2]) if across else before[row : row + 1]
        assert np.array_equal(after[row : row + 1], expected)
    (again,) = make_arm(work, "classic:shuffled-boxes", toy).added
    assert again.boxes.equals(shuffled.boxes)


def test_the_placebo_adds_new_images_and_no_lesion(work: Workspace, toy: DBTDataset) -> None:
    (all_,), (normal,) = (make_arm(work, f"classic{end}", toy).added for end in ("", ":normals-only"))
    assert normal.boxes.empty
    assert set(normal.cases["case"]) == set(all_.cases["case"]) - set(all_.boxes["case"])
    assert 0 < len(normal) < len(all_)


def test_fine_tuning_has_the_same_data_in_another_order(work: Workspace, toy: DBTDataset) -> None:
    mixed, arm = (make_arm(work, f"classic{end}", toy) for end in ("", ":finetune"))
    assert (mixed.finetune, arm.finetune) == (False, True)
    assert arm.counts == mixed.counts


def test_two_augmentations_are_added_together(work: Workspace, toy: DBTDataset) -> None:
    generate.draw(work, generate.fit(work, "classic", toy), n=4, seed=1, name="again")
    generate.draw(work, generate.fit(work, "classic", toy), n=DRAWN, name="first")
    arm = make_arm(work, "first+again", toy)
    assert [len(drawn) for drawn in arm.added] == [DRAWN, 4]
    assert arm.counts["training_synthetic"] == DRAWN + 4
    few = make_arm(work, "first+again:0.125:normals-only", toy)
    assert [list(drawn.cases["case"]) for drawn in few.added] == [
        [case for case in (0, 1) if not drawn.boxes["case"].eq(case).any()] for drawn in arm.added
    ]


def test_two_augmentations_have_every_control(work: Workspace, toy: DBTDataset) -> None:
    for seed, name in enumerate(("first", "again")):
        generate.draw(work, generate.fit(work, "classic", toy), n=8, seed=seed, name=name)
    both = make_arm(work, "first+again", toy)
    arms = {control: make_arm(work, f"first+again:0.5:{control}", toy) for control in CONTROLS}
    assert [arm.name for arm in arms.values()] == [f"first+again:0.5:{control}" for control in CONTROLS]
    for control, arm in arms.items():
        assert [drawn.name for drawn in arm.synthetic] == ["first", "again"]
        assert arm.equal is (arm.counts["training_real"] == 0) is (control == "synthetic-only")
    assert arms["finetune"].finetune
    assert all(drawn.boxes.empty for drawn in arms["normals-only"].synthetic)
    for kept, other in zip(both.synthetic, arms["shuffled-boxes"].synthetic, strict=True):
        assert set(kept.boxes["case"]) == set(other.boxes["case"])
        assert not kept.boxes.equals(other.boxes)
    counts = make_arm(work, "first+again:synthetic-only", toy).counts
    assert (counts["training_real"], counts["training_synthetic"]) == (0, 16)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_trains_on_nothing(work: Workspace, toy: DBTDataset, name: str) -> None:
    arm = make_arm(work, name, toy)
    assert arm.reference == arm.name == name
    assert set(arm.counts.values()) == {0}
    assert len(arm.real.select("test"))


def test_boxes_without_a_partner_cannot_be_shuffled(toy: DBTDataset) -> None:
    one = toy.take(toy.cases["case"] == toy.boxes["case"].iloc[0])
    with pytest.raises(UsageError, match="too few volumes with lesions"):
        with_shuffled_boxes(one)


def test_more_real_adds_the_reserve_and_larger_shares_hold_smaller_ones(
    work: Workspace, reserved: DBTDataset
) -> None:
    train = set(reserved.select("train").cases["PatientID"])
    reserve = set(reserved.select("reserve").cases["PatientID"])
    half, all_ = (
        set(make_arm(work, name, reserved).train.cases["PatientID"])
        for name in ("more-real:0.5", "more-real")
    )
    assert all_ == train | reserve
    assert train < half < all_
    test = set(reserved.select("test").cases["PatientID"])
    assert not all_ & test


def test_without_a_reserve_there_is_no_ceiling(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(MissingError, match="has no reserve") as error:
        make_arm(work, "more-real", toy)
    assert "--reserve" in error.value.hint


@pytest.mark.parametrize(
    "name",
    ["", "real:2", "oversample:1", "real:synthetic-only", "more-real:2", "more-real:0",
     "more-real:synthetic-only", "classic:x", "classic:-1", "classic:nan", "classic:inf", ":2",
     "a+b:only-one", "a+b:finetune:shuffled-boxes",
     "a+a", "a+a:synthetic-only", "a+", "a+real", "real+chance", "chance:2", "blob:finetune", "a:chance",
     "classic:synthetic-only:2", "classic:1:synthetic-only:synthetic-only", "<b>", "a b", "../x"],
)  # fmt: skip
def test_names_that_are_none_are_refused(work: Workspace, toy: DBTDataset, name: str) -> None:
    with pytest.raises(UsageError, match="no arm named"):
        make_arm(work, name, toy)


@pytest.mark.parametrize(
    ("old", "new"),
    [("none", "real"), ("classic:only", "classic:synthetic-only"), ("a:2:only", "a:2:synthetic-only")],
)
def test_an_earlier_name_is_refused_with_the_present_one(
    work: Workspace, toy: DBTDataset, old: str, new: str
) -> None:
    with pytest.raises(UsageError, match=f"no arm named '{old}'") as error:
        make_arm(work, old, toy)
    assert error.value.hint == f"it is called {new} now"


@given(
    source=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}([+][A-Za-z0-9]{1,9})?", fullmatch=True),
    ratio=st.none() | st.floats(1e-6, 1000),
    control=st.sampled_from(["", *CONTROLS]),
)
def test_a_name_is_read_as_it_is_written(source: str, ratio: float | None, control: str) -> None:
    name = ArmName(source, ratio, control)
    sources = source.split("+")
    reserved = {*sources} & {*ARMS_OF_REAL, *REFERENCES, *RENAMED}
    if not reserved and len({*sources}) == len(sources):
        assert ArmName.parse(str(name)) == name


def test_the_same_ratio_is_the_same_arm_however_it_is_written(work: Workspace, toy: DBTDataset) -> None:
    names = {make_arm(work, name, toy).name for name in ("classic:0.5", "classic:.5", "classic:5e-1")}
    assert names == {"classic:0.5"}


@given(st.text(alphabet="real:ovsmplcinty0.5-", max_size=20))
def test_any_name_is_an_arm_or_a_clear_error(toy: DBTDataset, name: str) -> None:
    with suppress(UsageError, MissingError):
        make_arm(Workspace(Path("nowhere")), name, toy)


def test_a_task_runs_its_controls_and_says_which_cannot_be_had(
    work: Workspace, toy: DBTDataset, reserved: DBTDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [arm.name for arm in default_arms(work, Detection.arms, ["classic"], toy)]
    assert names == ["real", *REFERENCES, "classic", "classic:shuffled-boxes", "classic:normals-only"]
    assert "without the arm more-real: toy has no reserve" in capsys.readouterr().err
    names = [arm.name for arm in default_arms(work, Detection.arms, [], reserved)]
    curve = [f"more-real{share}" for share in (":0.1", ":0.25", ":0.5", "")]
    assert names == ["real", *REFERENCES, "classic", *curve]


def test_an_augmentation_that_is_asked_for_must_be_there(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(MissingError, match="nothing drawn by 'ddpm'"):
        default_arms(work, Detection.arms, ["ddpm"], toy)


def test_a_generator_that_saw_another_split_is_refused_with_exit_code_4(
    work: Workspace, toy: DBTDataset
) -> None:
    name = next(path.name for path in work.datasets.iterdir() if path.name.startswith("classic-"))
    other = replace(toy, meta={**toy.meta, "split": {"hash": "0" * 64}})
    with pytest.raises(StaleError, match="another split") as error:
        make_arm(work, f"{name}:synthetic-only", other)
    assert error.value.exit_code == 4
