"""A finished dataset as a source: its images, where they were found, with its captions."""

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, spill, storage, tables
from catalog.dataset.dataset import Dataset
from catalog.sample import OK
from pipeline.errors import UsageError
from pipeline.recipe.recipe import Recipe
from pipeline.scan.secrets import check_no_secrets


def committed_source(uri: str, recipe: Recipe) -> tuple[pa.Table, dict[str, object]]:
    """Return the images of a dataset's samples as a source table; none is read again.

    A row is that of the dataset's own scan with the sample's caption, so another dataset made of
    it has the same keys, ranks and draws: new conditions pair with the old ones by key.

    Args:
        uri: of a finished dataset.
        recipe: of the dataset to make.

    Returns:
        The table `catalog.tables.SOURCE`, and the metadata to keep with it.

    Raises:
        UsageError: the recipe would caption all the images again, or the URI holds a password.
        DatasetError: there is no finished dataset.
    """
    if recipe.captions.wants("a caption that is there"):
        raise UsageError(
            f"--from {uri} brings captions along, and captions.captioner "
            f"{recipe.captions.captioner!r} would write others: take sidecar, or sidecar_or_blip "
            "to caption the images whose caption is empty; to caption all anew, give --images"
        )
    check_no_secrets(uri)
    opened = Dataset.open(uri)
    kept = opened.view(columns=["sha256", "caption"]).table
    rows = tables.read_table(opened.source).replace_schema_metadata(None)
    at = lookup.index_in(rows["sha256"], kept["sha256"])
    usable = pc.and_(pc.equal(rows["status"], OK), pc.is_valid(at))
    rows = spill.where(rows, usable)
    texts = spill.take_values(kept["caption"], at.filter(usable).to_numpy())
    column = tables.SOURCE.get_field_index("caption")
    rows = rows.set_column(column, tables.SOURCE.field(column), texts)
    return rows, {**describe(uri), "fingerprint": opened.fingerprint}


def describe(uri: str) -> dict[str, object]:
    """Return what a plan was asked to be made of, in the form that is kept with it."""
    return {"from": storage.absolute(uri.rstrip("/"))}
