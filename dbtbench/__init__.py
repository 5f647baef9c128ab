"""dbtbench: does synthetic data help a tomosynthesis detector, and is it any good?"""

__version__ = "0.1.0"
