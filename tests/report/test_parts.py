"""What the sections are made from: sprites, volumes of a layout, detections, curves, verdicts, commands."""

from __future__ import annotations

import base64
import io
import shlex
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dbtbench.data.dataset import DBTDataset
from dbtbench.metrics.froc import mean_sensitivity
from dbtbench.pages.sprites import FORMATS, Format, choose_format, count_columns, encode
from dbtbench.report import Material, curves, gather
from dbtbench.report.curves import OPERATING_POINTS, POINTS, describe_curves
from dbtbench.report.looks import describe_looks
from dbtbench.report.provenance import describe_provenance
from dbtbench.report.tables import describe_board, judge_row, kind_of, place
from dbtbench.report.verdict import CONTRASTS, _say_contrasts, write_verdicts
from dbtbench.workspace import Workspace


@pytest.fixture(scope="module")
def material(work: Workspace) -> Material:
    return gather(work)


@pytest.fixture(scope="module")
def looks(material: Material) -> dict[str, Any]:
    found = describe_looks(material)
    assert found is not None
    return found


def read_sprite(look: dict[str, Any], url: str) -> Any:
    """Cut a sprite into its slices again: (D, H, W) in [0, 1]."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))), np.float32) / 255
    height, width = look["tile"]
    places = [divmod(k, look["columns"]) for k in range(look["grid"][0])]
    return np.stack([sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places])


@pytest.mark.parametrize("depth", [1, 5, 8])
def test_a_sprite_holds_every_slice_at_its_place(depth: int) -> None:
    volume = np.random.default_rng(depth).random((depth, 6, 9)).astype(np.float32)
    form = Format("PNG")
    url = f"data:image/png;base64,{base64.b64encode(encode(volume, form)).decode()}"
    look = {"tile": [6, 9], "columns": count_columns(depth), "grid": [depth, 6, 9]}
    np.testing.assert_allclose(read_sprite(look, url), volume, atol=0.5 / 255 + 1e-6)


def test_a_format_fits_the_budget_and_is_the_truest_that_does() -> None:
    volume = np.random.default_rng(0).random((4, 64, 64)).astype(np.float32)
    read = [lambda: volume] * 10
    whole = 10 * len(encode(volume, FORMATS[0]))
    assert choose_format(read, whole) == FORMATS[0]
    smaller = choose_format(read, whole // 4)
    assert smaller.kind == "JPEG"
    assert 10 * len(encode(volume, smaller)) <= whole // 4
    assert choose_format(read, 1) == FORMATS[-1]


def test_volumes_of_a_layout_stand_beside_the_one_it_was_taken_from(
    looks: dict[str, Any], work: Workspace
) -> None:
    real, gan = (DBTDataset.open(work.datasets / name) for name in ("toy", "gan0"))
    assert len(looks["layouts"]) == 8
    mirrored = 0
    for layout in looks["layouts"]:
        first, second = layout["volumes"][:2]
        number = int(second["caption"].rpartition(" ")[2])
        source = int(gan.cases["source"].iloc[number])
        shown, expected = read_sprite(looks, first["sprite"]), real.volumes([source])[0, 0]
        if "mirrored" in first["caption"]:
            mirrored += 1
            expected = expected[:, :, ::-1]
        np.testing.assert_allclose(shown, expected, atol=0.01)
        np.testing.assert_allclose(
            read_sprite(looks, second["sprite"]), gan.volumes([number])[0, 0], atol=0.01
        )
        assert all(volume["same"] for volume in layout["volumes"])
    assert 0 < mirrored < 8


def test_the_difference_shows_what_was_painted_in_and_only_for_what_is_derived(looks: dict[str, Any]) -> None:
    names = {volume["name"] for layout in looks["layouts"] for volume in layout["volumes"]}
    assert names == {"real", "gan0", "gan0 − original", "gan1"}
    layout = looks["layouts"][0]
    shown = next(v for v in layout["volumes"] if v["difference"])
    grey = read_sprite(looks, shown["sprite"])
    z0, y0, x0, z1, y1, x1 = (int(end) for end in shown["boxes"][0])
    inside = np.zeros(grey.shape, bool)
    inside[z0:z1, y0:y1, x0:x1] = True
    np.testing.assert_allclose(grey[~inside], 0.5, atol=0.01)
    assert grey[inside].mean() > 0.55


def test_detections_lie_where_they_were_predicted_and_know_what_they_hit(looks: dict[str, Any]) -> None:
    seen = 0
    for run in looks["runs"]:
        assert len(run["found"]) == len(looks["tests"])
        for test, found in zip(looks["tests"], run["found"], strict=True):
            scores = [one[6] for one in found]
            assert scores == sorted(scores, reverse=True)
            for one in found:
                at = [abs(np.subtract(one[:6], box)).max() for box in test["volumes"][0]["boxes"]]
                if one[6] > 0.8:
                    assert min(at) < 0.05
                    assert one[7] == 1
                    seen += 1
                else:
                    np.testing.assert_allclose(one[:6], [0, 1, 1, 2, 4, 4], atol=0.05)
    assert seen


def test_a_curve_is_the_mean_over_seeds_inside_its_band(material: Material) -> None:
    board = material.boards[0]
    described = describe_curves(board)
    assert described is not None
    for arm in described["arms"]:
        values, low, high = (np.array(arm[name]) for name in ("value", "low", "high"))
        assert (low <= values + 1e-9).all()
        assert (values <= high + 1e-9).all()
        tables = [run.outcomes["outcomes"] for run in board.runs[arm["label"]].values()]
        for point in OPERATING_POINTS:
            ones = np.ones((1, tables[0]["PatientID"].nunique()))
            expected = np.mean([mean_sensitivity(table, ones, [point])[0] for table in tables])
            assert values[POINTS.index(point)] == pytest.approx(expected, abs=1e-4)


def test_marks_of_the_board_lie_where_the_numbers_say(material: Material) -> None:
    described = describe_board(material, material.boards[0])
    low, high = (float(end) for end in described["scale"])
    for row in described["rows"]:
        at = low + row["bar"]["at"] / 100 * (high - low)
        assert at == pytest.approx(row["values"][0]["sort"], abs=0.01)
        if row["bar"]["low"] is not None:
            assert row["bar"]["low"] <= row["bar"]["at"] <= row["bar"]["high"]
        assert len(row["runs"]) == row["seeds"] == 5
    assert place(2.0, (0.0, 1.0)) == 100
    assert place(float("nan"), (0.0, 1.0)) is None


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "not distinguishable"),
        ({"p_holm": 0.01}, "better"),
        ({"p_holm": 0.01, "better": -0.1}, "worse"),
        ({"p": 0.01, "p_holm": np.nan}, "better"),
        ({"p_holm": 0.01, "seeds": 4}, "too few seeds"),
        ({"difference_low": np.nan}, "not tested"),
        ({"difference_low": np.nan, "floor_percentile": 50}, "within real data"),
        ({"difference_low": np.nan, "floor_percentile": 99}, "outside real data"),
        ({"arm": "real"}, "baseline"),
        ({"arm": "blob"}, "reference"),
    ],
)
def test_an_outcome_is_called_by_its_test(changes: dict[str, Any], outcome: str) -> None:
    row = {"arm": "gan", "difference_low": -0.1, "seeds": 5, "baseline_seeds": 5, "p": 0.5, "p_holm": 0.5}
    assert judge_row(row | {"better": 0.1, "floor_percentile": np.nan} | changes) == outcome


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "said"),
    [
        (0.1, 0.05, 0.15, 0.01, "is better than"),
        (0.1, -0.05, 0.25, 0.2, "could not be distinguished from"),
        (0.1, 0.05, 0.15, 0.2, "could not be distinguished from"),  # a step before it was not passed
        (-0.05, -0.08, -0.02, 1.0, "is worse than"),
    ],
)
def test_a_contrast_is_called_by_its_test_and_its_interval(
    value: float, low: float, high: float, p: float, said: str
) -> None:
    column = {"over_unlearned": value, "over_unlearned_low": low, "over_unlearned_high": high}
    others = {f"{name}{end}": np.nan for name in CONTRASTS for end in ("", "_low", "_high", "_p")}
    row = {"outcome": "better", "label": "gan"} | others | column | {"over_unlearned_p": p}
    assert f"gan {said} " in _say_contrasts(pd.Series(row))[0]


def test_arms_are_of_a_kind() -> None:
    kinds = {"real": "real", "more-real:0.5": "real", "chance": "reference", "a": "augmentation"}
    kinds |= {"a:2": "augmentation", "a:shuffled-boxes": "control", "a (2 trainings)": "augmentation"}
    assert {arm: kind_of(arm) for arm in kinds} == kinds


def test_the_verdict_has_intervals_and_says_what_cannot_be_told(published: Any, material: Material) -> None:
    said = write_verdicts(gather(results=published))[0]
    assert said["text"].startswith("Trained on real data alone, mean sensitivity is 0.")
    table = pd.read_csv(published / "leaderboard.csv")
    row = table[(table["arm"] == "ddpm") & (table["primary"] == 1)].iloc[0]
    ends = f"[{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
    assert f"ddpm ({row['difference']:+.3f} {ends}, Holm p" in said["text"]
    assert "better than real" in said["text"] or "Not distinguishable from real: ddpm" in said["text"]
    assert "All real data together (more-real) give +" in said["text"]
    assert "Not distinguishable from real: gan0" in write_verdicts(material)[0]["text"]


def test_the_commands_repeat_the_board(material: Material) -> None:
    described = describe_provenance(material, material.boards[0])
    generate, other, evaluate = (shlex.split(line) for line in described["commands"][:3])
    assert generate[:5] == ["dbtbench", "generate", "gan0", "--data", "toy"]
    assert other[2] == "gan1"
    assert evaluate[evaluate.index("--seeds") + 1] == "5"
    assert [evaluate[k + 1] for k, word in enumerate(evaluate) if word == "--arms"] == ["gan0", "gan1"]
    facts = dict(described["facts"])
    assert facts["data fingerprint"] == material.boards[0].first.record.data.fingerprint


def test_groups_that_a_data_set_names_have_gains(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    assert curves.describe_gains(material, material.boards[0]) is None  # three patients are too few
    monkeypatch.setattr(curves, "FEWEST", 1)
    gains = curves.describe_gains(material, material.boards[0])
    assert gains is not None
    assert gains["arms"] == ["gan0", "gan1"]
    groups = {(row["column"], row["group"]) for row in gains["rows"]}
    assert groups >= {("projection", "cc"), ("projection", "mlo")}
    for row in gains["rows"]:
        assert row["low"] <= row["gain"] <= row["high"]
        assert row["bar"][1] <= row["bar"][0] <= row["bar"][2]
