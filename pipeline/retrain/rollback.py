"""An earlier promotion made current again."""

from catalog.dataset.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.retrain.lease import hold
from pipeline.retrain.nightly import Nightly
from pipeline.retrain.promotions import Promotion, history, roll_back


def roll_back_to(config: Nightly, number: int, *, owner: str) -> Promotion:
    """Promote what record `number` holds again, if it is all there still.

    Args:
        config: of the schedule.
        number: of an earlier promotion.
        owner: who this is, for others to read.

    Raises:
        UsageError: there is no such record, it is current, or its snapshot or run was deleted.
        BusyError: a night is at work.
    """
    with hold(config.folder, owner, lapses_after=config.lease_lapses_after) as lease:
        for record in history(config.folder):
            if record.number == number:
                _check_there(record)
        return roll_back(config.folder, number, lease)


def _check_there(record: Promotion) -> None:
    if record.night not in Dataset.open(record.dataset).snapshots():
        raise UsageError(
            f"the snapshot {record.night} of {record.dataset} was deleted, as keep: says; it "
            "cannot become current again"
        )
