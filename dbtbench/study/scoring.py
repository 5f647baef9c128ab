"""Scores of a study: accuracy and d′ of choices, AUC of ratings, by reader and over readers.

One reader:
    accuracy    interval of Wilson (1927, doi 10.1080/01621459.1927.10502953)
    d′          √2 Φ⁻¹(accuracy), as for two alternatives (Macmillan & Creelman, Detection Theory, chapter 7);
                accuracies nearer to 0 or 1 than half a case are moved there, so that it is finite
    AUC         share of (real, synthetic) pairs in which the real one is rated higher, ties count half;
                interval of Newcombe (2006, method 5, doi 10.1002/sim.2324)

Over readers: the mean, for other readers and other cases of the same kind. Jackknife pseudovalues (reader,
case) are analysed with both as random (Dorfman, Berbaum & Metz 1992, doi 10.1097/00004424-199209000-00015),
with the degrees of freedom of Hillis (2007, doi 10.1002/sim.2532). For accuracy the pseudovalues are the
answers themselves, right or wrong.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from dbtbench.runtime.text import one_line

LEVEL = 0.95
REAL = "none"
"""The synthetic data set of a real volume."""
Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def score_study(
    kind: str, truth: pd.Series, answers: pd.DataFrame, synthetic: pd.Series | None = None
) -> dict[str, Any]:
    """Score all answers.

    Args:
        kind: `2afc` or `rating`.
        truth: by case.
        answers: as `read_answers` gives them.
        synthetic: by case, the synthetic data set that it shows.

    Returns:
        `kind`; `readers`, each with its name, its number of cases, the median of its seconds, and its
        estimates; `over_readers` with the cases that all of them answered, or None where there is one
        reader, or where those cases are too few; `by_set` with the same for each synthetic data set, where
        there are several. A rating compares each set with all real volumes.
    """
    name = "accuracy" if kind == "2afc" else "auc"
    table = answers.pivot(index="reader", columns="case", values="answer").reindex(columns=truth.index)  # noqa: PD010
    readers = []
    for reader, row in table.iterrows():
        own = row.dropna()
        seconds = answers.loc[answers["reader"] == reader, "seconds"]
        score = _score_reader(kind, truth[own.index], own)
        described = {"reader": str(reader), "cases": len(own), "median_seconds": float(seconds.median())}
        readers.append(described | _describe(name, score, len(own)))
    common = table.dropna(axis="columns")
    estimate = _score_readers(kind, truth[common.columns], common) if len(table) > 1 else None
    over = None
    if estimate is not None:
        over = {"readers": len(table), "cases": len(common.columns)}
        over |= _describe(name, estimate, len(common.columns))
    by_set = []
    if synthetic is not None:
        sets = [each for each in synthetic.unique() if each != REAL]
        for each in sets if len(sets) > 1 else []:
            shown = [case for case in common.columns if synthetic[case] in (each, REAL)]
            estimate = _score_readers(kind, truth[shown], common[shown])
            described = {"synthetic": str(each), "readers": len(table), "cases": len(shown)}
            by_set.append(described | _describe(name, estimate, len(shown)))
    return {"kind": kind, "readers": readers, "over_readers": over, "by_set": by_set}


def _score_readers(kind: str, truth: pd.Series, table: pd.DataFrame) -> Estimate | None:
    """Score readers (rows) who answered the same cases (columns): their mean, or the only one's own score."""
    if table.empty:
        return None
    if len(table) == 1:
        return _score_reader(kind, truth, table.iloc[0])
    values = _pseudovalues(kind, truth, table)
    return None if values is None else average_readers(values, _interval_of(kind, truth))


def estimate_accuracy(right: int, cases: int) -> Estimate:
    """Give the share of right answers, with Wilson's interval."""
    interval = scipy.stats.binomtest(right, cases).proportion_ci(LEVEL, "wilson")
    return Estimate(right / cases, float(interval.low), float(interval.high))


def to_d_prime(accuracy: float, cases: int) -> float:
    """Convert an accuracy with two alternatives to d′."""
    least = 1 / (2 * cases)
    return math.sqrt(2) * float(scipy.special.ndtri(min(max(accuracy, least), 1 - least)))


def estimate_auc(area: float, real: int, synthetic: int) -> Estimate:
    """Give Newcombe's interval of an area: all that are not further from it than by their own spread.

    Args:
        area: from 0 to 1.
        real: number of real cases.
        synthetic: number of synthetic ones.
    """
    z = float(scipy.special.ndtri((1 + LEVEL) / 2))
    further = (real + synthetic) / 2 - 1

    def spread(a: float) -> float:
        return a * (1 - a) * (1 + further * ((1 - a) / (2 - a) + a / (1 + a))) / (real * synthetic)

    def excess(a: float) -> float:
        return abs(a - area) - z * math.sqrt(spread(a))

    tiny = 1e-9  # at 0 and 1 themselves the spread is 0
    low = 0.0 if area < tiny else float(scipy.optimize.brentq(excess, tiny**2, min(area, 1 - tiny)))
    high = 1.0 if area > 1 - tiny else float(scipy.optimize.brentq(excess, max(area, tiny), 1 - 1e-15))
    return Estimate(area, low, high)


def compare_pairs(real: ArrayLike, synthetic: ArrayLike) -> Floats:
    """Compare each real rating with each synthetic one: 1 higher, ½ equal, 0 lower; (real, synthetic)."""
    difference = np.subtract.outer(np.asarray(real, np.float64), np.asarray(synthetic, np.float64))
    return np.asarray(np.heaviside(difference, 0.5))


def jackknife_area(pairs: Floats) -> Floats:
    """Give the pseudovalues of the area, the real cases' first; their mean is close to the area."""
    real, synthetic = pairs.shape
    cases, total = real + synthetic, pairs.sum()
    without_real = (total - pairs.sum(axis=1)) / ((real - 1) * synthetic)
    without_synthetic = (total - pairs.sum(axis=0)) / (real * (synthetic - 1))
    without = np.concatenate([without_real, without_synthetic])
    return np.asarray(cases * pairs.mean() - (cases - 1) * without)


def average_readers(values: Floats, alone: Any) -> Estimate:
    """Average over readers, with an interval for other readers and other cases.

    Args:
        values: pseudovalues (readers, cases), two readers or more.
        alone: gives the interval of one reader with a given score. It is used where readers do not differ at
            all, as when all are right every time: the analysis of variance would give no width then.
    """
    readers, cases = values.shape
    mean = float(values.mean())
    of_reader, of_case = values.mean(axis=1), values.mean(axis=0)
    ms_reader = cases * float(of_reader.var(ddof=1))
    ms_case = readers * float(of_case.var(ddof=1)) if cases > 1 else 0.0
    rest = values - of_reader[:, None] - of_case[None] + mean
    ms_rest = float((rest**2).sum()) / ((readers - 1) * max(cases - 1, 1))
    spread = ms_reader + max(ms_case - ms_rest, 0.0)
    if ms_rest < 1e-12 or spread < 1e-12:
        return Estimate(*alone(min(max(mean, 0.0), 1.0)))
    freedom = spread**2 / (ms_reader**2 / (readers - 1)) if ms_reader > 0 else math.inf
    width = float(scipy.stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(spread / (readers * cases))
    return Estimate(mean, max(mean - width, 0.0), min(mean + width, 1.0))


def as_text(scores: dict[str, Any]) -> str:
    """Write scores as a table for the terminal."""
    two = scores["kind"] == "2afc"
    name, title = ("accuracy", "accuracy") if two else ("auc", "AUC")
    rows = [(r["reader"], r["cases"], r, f"{r['median_seconds']:.1f}") for r in scores["readers"]]
    over = scores["over_readers"]
    if over:
        rows.append((f"mean of {over['readers']} readers", over["cases"], over, ""))
    rows += [(f"of {each['synthetic']}", each["cases"], each, "") for each in scores["by_set"]]
    heading = ["reader", "cases", f"{title} [95 %]", *(["d′ [95 %]"] if two else []), "seconds, median"]
    cells = [
        [
            one_line(str(reader)),
            str(cases),
            _write(each[name]),
            *([_write(each["d_prime"])] if two else []),
            seconds,
        ]
        for reader, cases, each, seconds in rows
    ]
    widths = [max(len(row[k]) for row in [heading, *cells]) for k in range(len(heading))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [heading, *cells]
    ]
    chance = f"{title} of chance: 0.5" + (", d′ of chance: 0" if two else "")
    return "\n".join([*lines, chance])


def _write(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _describe(name: str, score: Estimate | None, cases: int) -> dict[str, Any]:
    described: dict[str, Any] = {name: None if score is None else score._asdict()}
    if name == "accuracy" and score is not None:
        described["d_prime"] = Estimate(*(to_d_prime(each, cases) for each in score))._asdict()
    return described


def _score_reader(kind: str, truth: pd.Series, answers: pd.Series) -> Estimate | None:
    if kind == "2afc":
        return estimate_accuracy(int((answers == truth).sum()), len(truth))
    real, ratings = truth == "real", answers.astype(float)
    if real.all() or not real.any():
        return None
    pairs = compare_pairs(ratings[real], ratings[~real])
    return estimate_auc(float(pairs.mean()), *pairs.shape)


def _interval_of(kind: str, truth: pd.Series) -> Any:
    """Give a function from one reader's score in these cases to its interval."""
    if kind == "2afc":
        return lambda score: estimate_accuracy(round(score * len(truth)), len(truth))
    real = int((truth == "real").sum())
    return lambda score: estimate_auc(score, real, len(truth) - real)


def _pseudovalues(kind: str, truth: pd.Series, table: pd.DataFrame) -> Floats | None:
    """Give the pseudovalues (readers, cases), or None where the cases are too few for them."""
    if kind == "2afc":
        return (table == truth).to_numpy(np.float64) if len(truth) > 1 else None
    real = (truth == "real").to_numpy()
    if real.sum() < 2 or (~real).sum() < 2:
        return None
    ratings = table.to_numpy().astype(np.float64)
    return np.array([jackknife_area(compare_pairs(row[real], row[~real])) for row in ratings])
