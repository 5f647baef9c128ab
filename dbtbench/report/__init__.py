"""The report: a board and what lies behind it, as one HTML file that needs no network.

gathering   runs, board and data sets
verdict     what the boards say, in words
tables      the boards, for the page
curves      FROC curves, and gains by group
realism, privacy, provenance
looks       volumes, side by side
facts       synthetic data sets by the seven criteria; card says the same as Markdown
page        the file: templates, script, policy
"""

from dbtbench.report.gathering import Material, gather
from dbtbench.report.page import render, write_report

__all__ = ["Material", "gather", "render", "write_report"]
