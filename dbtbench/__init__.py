"""dbtbench: does synthetic data help a tomosynthesis detector, and is it any good?

Everything that the command line does can be done from Python; see docs/python.md.

>>> import dbtbench
>>> dataset = dbtbench.open(folder)
>>> dataset[0]["image"].shape
torch.Size([1, 8, 32, 32])
"""

from typing import TYPE_CHECKING

from dbtbench.runtime.lazy import offer_lazily
from dbtbench.version import __version__

__all__ = [
    "Arm",
    "DBTBenchError",
    "DBTDataset",
    "Generator",
    "Layout",
    "Metric",
    "Pool",
    "Recipe",
    "Sample",
    "Task",
    "Workspace",
    "__version__",
    "evaluate",
    "measure_realism",
    "metrics",
    "open",
    "sample",
    "score_dbtex",
]

__getattr__, __dir__ = offer_lazily(
    __name__,
    {
        "Arm": "dbtbench.task:Arm",
        "DBTBenchError": "dbtbench.errors:DBTBenchError",
        "DBTDataset": "dbtbench.data.dataset:DBTDataset",
        "Generator": "dbtbench.generator:Generator",
        "Layout": "dbtbench.generator:Layout",
        "Metric": "dbtbench.metric:Metric",
        "Pool": "dbtbench.runtime.pool:Pool",
        "Recipe": "dbtbench.recipe:Recipe",
        "Sample": "dbtbench.generator:Sample",
        "Task": "dbtbench.task:Task",
        "Workspace": "dbtbench.workspace:Workspace",
        "evaluate": "dbtbench.api:evaluate",
        "measure_realism": "dbtbench.api:measure_realism",
        "metrics": "dbtbench.metrics",
        "open": "dbtbench.api:open_dataset",
        "sample": "dbtbench.api:sample",
        "score_dbtex": "dbtbench.metrics.froc:score_dbtex",
    },
)

if TYPE_CHECKING:
    from dbtbench import metrics
    from dbtbench.api import evaluate, measure_realism, sample
    from dbtbench.api import open_dataset as open  # noqa: A004
    from dbtbench.data.dataset import DBTDataset
    from dbtbench.errors import DBTBenchError
    from dbtbench.generator import Generator, Layout, Sample
    from dbtbench.metric import Metric
    from dbtbench.metrics.froc import score_dbtex
    from dbtbench.recipe import Recipe
    from dbtbench.runtime.pool import Pool
    from dbtbench.task import Arm, Task
    from dbtbench.workspace import Workspace
