"""The board: finished evaluation runs become one CSV, the same bytes whenever it is built from the same runs.

    results/runs/TASK/HASH.json           the runs' records, copied from the workspace
    results/runs/TASK/HASH.outcomes.csv   what their metrics are resampled from, by patient
    results/leaderboard.csv               long form, one row for each (board, arm, metric)
    results/README.md                     the same in short, between its markers

Only runs of the same task version, recipe, data and split stand on one board.
"""

from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.leaderboard.merging import add
from dbtbench.leaderboard.publishing import build, check, publish, rank
from dbtbench.leaderboard.verifying import Verification, verify
from dbtbench.leaderboard.view import summary, wide
from dbtbench.records import Record

__all__ = [
    "COLUMNS",
    "Record",
    "Verification",
    "add",
    "build",
    "check",
    "publish",
    "rank",
    "summary",
    "verify",
    "wide",
]
