"""What the last scan of a dataset's source found, so that the next one reads only what changed.

``logs/found.parquet``: the rows as they were found, with names, sizes and times of their files. A
file that is not there, or of another form, only means that all is read again.
"""

import logging

from catalog import storage, tables
from catalog.errors import StorageUnavailable
from pipeline.scan.chunks import FOUND
from pipeline.scan.scan import Found

NAME = "logs/found.parquet"

_log = logging.getLogger(__name__)


def read_found(dataset: str) -> Found | None:
    """Return what the last scan for a dataset found; None where nothing of use was kept."""
    uri = storage.join(dataset, NAME)
    if not storage.exists(uri):
        return None
    told = tables.read_metadata(uri)
    rows = tables.read_table(uri).replace_schema_metadata(None)
    if rows.schema.names != FOUND.names or not {"passed", "form"} <= told.keys():
        return None
    return Found(rows=rows.cast(FOUND), passed=told["passed"], form=told["form"])


def keep_found(dataset: str, found: Found) -> None:
    """Keep what a scan found for the next one; where that cannot be, only say so."""
    metadata = {"passed": found.passed, "form": found.form}
    try:
        uri, pieces = storage.join(dataset, NAME), tables.cut(found.rows)
        tables.write_parquet(uri, found.rows.schema, pieces, metadata)
    except (OSError, StorageUnavailable) as error:
        _log.warning("%s cannot be kept, so the next scan reads all again: %s", NAME, error)


def forget_found(dataset: str) -> None:
    """Forget it: the next scan reads all again."""
    storage.remove(storage.join(dataset, NAME))
