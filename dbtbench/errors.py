"""The errors a user can meet: each says what is wrong, what to do, and which exit code it ends with."""


class DBTBenchError(Exception):
    """A failed run (exit code 1).

    Args:
        message: what is wrong, naming the thing; one sentence.
        hint: what to do about it, preferably a command.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DBTBenchError):
    """What was asked for makes no sense as it stands (exit code 2)."""

    exit_code = 2


class MissingError(DBTBenchError):
    """Data, a plug-in or a device is not there (exit code 3)."""

    exit_code = 3


class StaleError(DBTBenchError):
    """Results are out of date or may not be compared (exit code 4)."""

    exit_code = 4


class DivergedError(DBTBenchError):
    """A training whose loss or gradient is no longer finite: the same settings always end here."""


class UnreadableError(Exception):
    """A file, or a row of a table, that cannot become a volume: it is counted, and the work goes on.

    Args:
        reason: why, in words that are the same for every such case, so that they can be counted.
        detail: what is particular to this one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
