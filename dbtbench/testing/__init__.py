"""Tests for authors of plug-ins: a toy data set, and the rules that every generator and task keeps.

`dbtbench.testing.suites` has them as pytest classes, and `dbtbench check-plugin` runs them without pytest.
"""

from dbtbench.testing.generators import check_generator
from dbtbench.testing.rules import CheckFailed
from dbtbench.testing.tasks import check_task
from dbtbench.testing.toy import make_toy_dataset

__all__ = ["CheckFailed", "check_generator", "check_task", "make_toy_dataset"]
