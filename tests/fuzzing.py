"""What the fuzzers share."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable

SECONDS = 5.0
"""CPU seconds that one input may take."""


def judge_input(judge: Callable[[], tuple[str, str]]) -> tuple[str, str, float]:
    """Judge one input; what hangs ends the tests with a traceback.

    Args:
        judge: gives a verdict and its detail.

    Returns:
        Both, and CPU seconds; the verdict is `raised` where an exception came through.
    """
    faulthandler.dump_traceback_later(60, exit=True)
    start = time.process_time()
    try:
        verdict, detail = judge()
    except Exception as error:  # the fault that is looked for
        verdict, detail = "raised", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    faulthandler.cancel_dump_traceback_later()
    return verdict, detail, seconds
