"""An observer of builds that shows nothing."""

from collections.abc import Callable

from pipeline.attempts.outcome import UnitFailure, UnitReport


class Silent:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[UnitReport] = []
        self.failures: list[UnitFailure] = []

    def scanning(self) -> Callable[[int, int], None]:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None:
        self.pending = pending

    def unit_done(self, report: UnitReport) -> None:
        self.reports.append(report)

    def unit_failed(self, failure: UnitFailure) -> None:
        self.failures.append(failure)
