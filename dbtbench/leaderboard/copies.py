"""Copies of runs under another name: no two trainings find the same to the last digit."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dbtbench.errors import StaleError
from dbtbench.records import Result

DISTINCT = 5
"""Different numbers that a result needs before its equal is taken for a copy: a few may agree by chance."""


def check_copies(results: Sequence[Result]) -> None:
    """See that no run of a board has what another arm or seed found.

    Where runs keep outcomes, these are compared. Where they keep none, all scores of arms with different
    synthetic volumes are.

    Raises:
        StaleError: naming both runs.
    """
    first: dict[tuple[object, ...], Result] = {}
    for result in results:
        found = _found(result)
        if found is None:
            continue
        record = result.record
        other = first.setdefault((*record.comparable.values(), found), result)
        one, two = (
            (run.record.synthetic,) if not run.outcomes else (run.record.arm, run.record.seed)
            for run in (result, other)
        )
        if one != two:
            raise StaleError(
                f"{result} and {other} have the same {'outcomes' if result.outcomes else 'scores'}: one is a "
                "copy of the other, or what it trained on changes nothing",
                "remove one of the two runs",
            )


def _found(result: Result) -> object:
    """Make something comparable of what a run found; None where it is too little to tell copies."""
    if result.outcomes:
        numbers = [table[name] for table in result.outcomes.values() for name in table.select_dtypes("float")]
        if sum(column.nunique() for column in numbers) < DISTINCT:
            return None
        # Hashes of rows are added up, so that their order does not matter.
        return tuple(
            int(pd.util.hash_pandas_object(table, index=False).sum()) for table in result.outcomes.values()
        )
    scores = result.record.scores
    numbers_said = {score for score in scores.values() if score is not None and score % 1}
    return tuple(scores.items()) if len(numbers_said) >= DISTINCT else None
