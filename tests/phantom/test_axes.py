"""Axes of a collection: their syntax, and the shares of patients that have a value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import LABELS
from dbtbench.errors import UsageError
from dbtbench.phantom.axes import AXES, deal, parse_shares, share_out
from dbtbench.phantom.cohort import SCREENING

SHARES = st.dictionaries(st.sampled_from(["w", "x", "y", "z"]), st.floats(0.01, 10), min_size=1)


def test_shares_are_met_by_the_largest_remainder() -> None:
    assert share_out(5060, SCREENING) == {"normal": 4581, "actionable": 278, "benign": 112, "cancer": 89}
    assert share_out(10, {"a": 0.4, "b": 0.1, "c": 0.25, "d": 0.25}) == {"a": 4, "b": 1, "c": 3, "d": 2}
    assert share_out(7, {"a": 1, "b": 0, "c": 2}) == {"a": 2, "b": 0, "c": 5}


@given(st.integers(0, 500), SHARES)
def test_shares_add_up_and_miss_by_less_than_one(patients: int, shares: dict[str, float]) -> None:
    counts = share_out(patients, shares)
    assert sum(counts.values()) == patients
    for value, share in shares.items():
        assert abs(counts[value] - patients * share / sum(shares.values())) < 1 + 1e-6


@pytest.mark.parametrize("shares", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}])
def test_shares_that_are_none_are_refused(shares: Mapping[str, float]) -> None:
    with pytest.raises(UsageError, match="no frequencies"):
        share_out(4, shares)


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=60), SHARES, st.integers(0, 9))
def test_every_label_has_its_share_of_an_axis(labels: list[str], shares: dict[str, float], seed: int) -> None:
    dealt = deal("density", shares, labels, seed)
    assert {v: dealt.count(v) for v in shares} == share_out(len(labels), shares)
    for label in set(labels):
        own = [value for value, of in zip(dealt, labels, strict=True) if of == label]
        for value, share in shares.items():
            assert abs(own.count(value) - len(own) * share / sum(shares.values())) < len(shares)


def test_an_axis_of_lesions_leaves_the_other_patients_out() -> None:
    labels = [*LABELS] * 5
    kinds = deal("lesion_kind", {"mass": 1, "spiculated": 1}, labels, 0)
    assert [kind is not None for kind in kinds] == [label in ("benign", "cancer") for label in labels]
    assert kinds.count("mass") == kinds.count("spiculated") == 5


def test_two_axes_are_independent() -> None:
    labels = ["cancer"] * 400
    first, second = (deal(axis, {1: 1, 2: 1}, labels, 0) for axis in ("dose", "lesion_size"))
    assert abs(np.corrcoef(np.array(first, float), np.array(second, float))[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("axis", "text", "shares"),
    [
        ("density", "b=0.5,c=0.5", {"b": 0.5, "c": 0.5}),
        ("density", "d", {"d": 1.0}),
        ("dose", "0.5=1, 1=3", {0.5: 1.0, 1.0: 3.0}),
        ("lesion_size", "8,16", {8.0: 1.0, 16.0: 1.0}),
        (
            "lesion_kind",
            "mass=2,spiculated=1,distortion=0",
            {"mass": 2.0, "spiculated": 1.0, "distortion": 0.0},
        ),
        ("mix", "normal=0.5,cancer=0.5", {"normal": 0.5, "cancer": 0.5}),
    ],
)
def test_shares_are_read(axis: str, text: str, shares: dict[str | float, float]) -> None:
    assert parse_shares(axis, text) == shares


@pytest.mark.parametrize(
    ("axis", "text", "error"),
    [
        ("density", "e", "--density has no value 'e'"),
        ("density", "", "--density has no value ''"),
        ("density", "b=0.5,b=0.5", "--density names b twice"),
        ("density", "b=half", "'half' is no share"),
        ("density", "b=-1", "no frequencies"),
        ("density", "b=nan", "no frequencies"),
        ("dose", "0", "--dose has no value '0'"),
        ("dose", "1e400", "--dose has no value"),
        ("conspicuity", "nan", "--conspicuity has no value 'nan'"),
        ("lesion_size", "200", "--lesion-size has no value '200'"),
        ("lesion_kind", "asymmetry", "--lesion-kind has no value 'asymmetry'"),
    ],
)
def test_what_is_no_axis_is_refused(axis: str, text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        parse_shares(axis, text)


@given(st.sampled_from([*AXES]), st.text())
def test_any_text_is_read_or_refused_by_name(axis: str, text: str) -> None:
    try:
        shares = parse_shares(axis, text)
    except UsageError:
        return
    assert sum(shares.values()) > 0
