"""What training needs of the rows that it reads."""

from collections.abc import Sequence
from typing import Protocol

from catalog.sample import Sample
from training.data.order import Sizes


class SampleView(Protocol):
    """What the loader needs of a `catalog.dataset.dataset.View`; picklable, for the workers."""

    @property
    def name(self) -> str:
        """Name of the choice: ``all``, or a subset's."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the rows, hex."""
        ...

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the condition maps that each sample holds."""
        ...

    def __len__(self) -> int: ...

    def keys(self) -> Sequence[str]:
        """Return the key of each row, unread."""
        ...

    def row_sizes(self) -> Sizes | None:
        """Return (height, width) in pixels of every row, unread; None where nothing tells them."""
        ...

    def read(self, index: int) -> Sample:
        """Return the sample at `index`, verified."""
        ...
