"""Cases, key and page of a study, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.study.answers import read_answers, read_key
from dbtbench.study.choosing import PRACTICE, choose_cases, make_key
from dbtbench.study.page import render

KINDS = ("2afc", "rating")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_cases_are_balanced_and_no_volume_comes_twice(
    real: DBTDataset, sets: list[DBTDataset], kind: str, seed: int
) -> None:
    cases = choose_cases(real, sets, kind, 8, seed)
    assert len(cases) == PRACTICE + 8
    scored = cases[PRACTICE:]
    truths = [case.truth for case in scored]
    assert sorted(set(truths)) == (["left", "right"] if kind == "2afc" else ["real", "synthetic"])
    assert truths.count(truths[0]) == 4
    shown = [source for case in cases for source in case.shown]
    assert len({(source.dataset.name, source.volume) for source in shown}) == len(shown)
    test = set(real.select("test").cases["case"])
    assert all(source.volume in test for source in shown if not source.dataset.synthetic)
    turns = [case.synthetic for case in scored if case.synthetic != "none"]
    assert {turns.count(each.name) for each in sets} == {len(turns) // len(sets)}


def test_a_pair_is_of_one_label_and_view_where_that_can_be(
    real: DBTDataset, make_toy: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    def describe(dataset: DBTDataset, volume: int) -> tuple[bool, str]:
        row = int(np.flatnonzero(dataset.cases["case"] == volume)[0])
        return bool(dataset.positive[row]), str(dataset.cases["View"].iloc[row])

    other = make_toy(tmp_path / "other", 24, seed=1)
    cases = choose_cases(real, [other], "2afc", 8, 0)
    assert all(describe(*case.shown[0]) == describe(*case.shown[1]) for case in cases)


def test_the_truth_follows_from_the_volumes_and_the_order_from_the_seed(
    real: DBTDataset, sets: list[DBTDataset]
) -> None:
    one, again, other = (make_key(choose_cases(real, sets, "2afc", 8, seed)) for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)
    for row in one.itertuples():
        is_real = [volume.startswith(f"{real.name}:") for volume in row.volumes.split()]
        assert is_real == [row.truth == "left", row.truth == "right"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_does_not_hold_the_key(real: DBTDataset, sets: list[DBTDataset], kind: str) -> None:
    cases = choose_cases(real, sets, kind, 4, 0)
    text = render(real, cases, kind)
    assert text == render(real, cases, kind)
    for name in (real.name, *(each.name for each in sets)):
        assert not re.search(rf"\b{name}\b", text)
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [set(case) for case in data["cases"]] == [{"case", "sprites"}] * 6
    assert set(data) == {"study", "kind", "practice", "grid", "tile", "columns", "cases"}


def test_what_cannot_be_balanced_or_is_too_much_is_refused(
    real: DBTDataset, sets: list[DBTDataset], make_toy: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    other_grid = make_toy(tmp_path / "other", 8, (8, 16, 16))
    for cases, given, problem in (
        (7, sets, "balanced"),
        (24, sets, "26 real volumes"),
        (4, [other_grid], "grid"),
    ):
        with pytest.raises(UsageError, match=problem):
            choose_cases(real, given, "2afc", cases, 0)


HEAD = "reader,case,answer,seconds\n"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "study.key.csv"
    path.write_text("case,truth,synthetic\nca,left,gan1\ncb,right,gan2\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ([HEAD + "R1,cx,left,1\n"], "a0.csv: the key has no case 'cx'"),
        ([HEAD + "R1,ca,left,1\nR1,ca,right,1\n"], "a0.csv: reader R1 answers case ca twice"),
        ([HEAD + "R1,ca,left,1\n", HEAD + "R1,ca,left,1\n"], "a1.csv: reader R1 answers case ca twice"),
        ([HEAD + "R1,ca,middle,1\n"], "not an answer: 'middle'"),
        ([HEAD + "=A1,ca,left,1\n"], "not a reader's code"),
        ([HEAD + "R1,ca,left,soon\n"], "line 2, column seconds"),
        ([HEAD + "R1,ca,left,-1\n"], "below 0"),
        ([HEAD], "a0.csv has no answers"),
        (["\0\0"], "a0.csv is not CSV"),
        (["case,answer\n"], "no column reader, seconds"),
    ],
)
def test_wrong_answers_are_named(key: Path, tmp_path: Path, texts: list[str], problem: str) -> None:
    files = [tmp_path / f"a{k}.csv" for k in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(problem)) as caught:
        read_answers(files, *read_key(key)[:2])
    assert caught.value.hint


@pytest.mark.parametrize("text", ["ca,left,g\nca,right,g\n", "ca,up,g\n", ""])
def test_what_is_no_key_is_refused(key: Path, text: str) -> None:
    key.write_text(f"case,truth,synthetic\n{text}", encoding="utf-8")
    with pytest.raises(UsageError, match="no key of a study"):
        read_key(key)


def test_the_command_scores_files(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "a.csv"
    answers.write_text(HEAD + "R1,ca,left,2\nR1,cb,left,4\n", encoding="utf-8")
    words = ["study", "score", str(answers), "--key", str(key)]
    app(args=[*words, "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert said["readers"][0]["accuracy"]["value"] == 0.5
    assert said["readers"][0]["median_seconds"] == 3
    app(args=words, standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["R1", "of gan1", "of gan2"]
    assert [each["accuracy"]["value"] for each in said["by_set"]] == [1, 0]
    for wrong in ([str(key)], [str(tmp_path / "none.csv")]):
        with pytest.raises(DBTBenchError):
            app(args=["study", "score", *wrong, "--key", str(key)], standalone_mode=False)


def test_the_key_lies_beside_the_page(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.html"
    words = ["study", "make", "--aug", "gan1", "--cases", "4", "--out", str(out), "--json"]
    app(args=[*words, "--workspace", str(workspace)], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert said["key"] == str(tmp_path / "s.key.csv")
    assert said["bytes"] == out.stat().st_size
    assert list(pd.read_csv(said["key"]).columns) == ["case", "truth", "synthetic", "volumes"]
