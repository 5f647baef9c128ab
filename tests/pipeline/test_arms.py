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
from dbtbench.task import ARMS_OF_REAL, ArmName
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
    assert (arm.added, arm.synthetic) == (None, None)
    assert arm.counts == {"training_real": len(toy.select("train")), "training_synthetic": 0}


def test_the_placebo_adds_the_training_split_itself(work: Workspace, toy: DBTDataset) -> None:
    arm = make_arm(work, "oversample", toy)
    assert arm.added is not None
    assert list(arm.added.cases["case"]) == list(arm.train.cases["case"])
    assert arm.counts == make_arm(work, "real", toy).counts


def test_an_augmentation_adds_all_or_so_many_synthetic_volumes(work: Workspace, toy: DBTDataset) -> None:
    n = len(toy.select("train"))
    assert make_arm(work, "classic", toy).counts == {"training_real": n, "training_synthetic": DRAWN}
    ratio = 4 / n
    few = make_arm(work, f"classic:{ratio:.6f}", toy)
    assert few.synthetic is not None
    assert list(few.synthetic.cases["case"]) == [0, 1, 2, 3]
    with pytest.raises(MissingError, match=f"has 12 volumes where {2 * n} are wanted") as error:
        make_arm(work, "classic:2", toy)
    assert f"--n {2 * n}" in error.value.hint


def test_synthetic_volumes_alone(work: Workspace, toy: DBTDataset) -> None:
    arm = make_arm(work, "classic:synthetic-only", toy)
    assert arm.train.synthetic
    assert arm.added is None
    assert arm.counts == {"training_real": 0, "training_synthetic": DRAWN}


def test_shuffled_boxes_are_those_of_another_volume_mirrored_to_its_side(
    work: Workspace, toy: DBTDataset
) -> None:
    kept, shuffled = (make_arm(work, f"classic{end}", toy).added for end in ("", ":shuffled-boxes"))
    assert kept is not None
    assert shuffled is not None
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
    again = make_arm(work, "classic:shuffled-boxes", toy).added
    assert again is not None
    assert again.boxes.equals(shuffled.boxes)


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
    source=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True),
    ratio=st.none() | st.floats(1e-6, 1000),
    control=st.sampled_from(["", "shuffled-boxes", "synthetic-only"]),
)
def test_a_name_is_read_as_it_is_written(source: str, ratio: float | None, control: str) -> None:
    name = ArmName(source, ratio, control)
    if source not in (*ARMS_OF_REAL, "none"):
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
    assert names == ["real", "oversample", "classic", "classic:shuffled-boxes"]
    assert "without the arm more-real: toy has no reserve" in capsys.readouterr().err
    names = [arm.name for arm in default_arms(work, Detection.arms, [], reserved)]
    assert names == ["real", "oversample", "classic", "more-real:0.33", "more-real"]


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
