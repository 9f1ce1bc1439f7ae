"""A finished dataset as a source: its images, where they were found, with its captions."""

import pyarrow as pa

from catalog import storage, tables
from catalog.dataset.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.recipe.recipe import Recipe


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
        UsageError: the recipe would caption all the images again.
        DatasetError: there is no finished dataset.
    """
    if recipe.captions.wants("a caption that is there"):
        raise UsageError(
            f"--from {uri} brings captions along, and captions.captioner "
            f"{recipe.captions.captioner!r} would write others: take sidecar, or sidecar_or_blip "
            "to caption the images whose caption is empty; to caption all anew, give --images"
        )
    opened = Dataset.open(uri)
    kept = opened.view().table
    captions = dict(zip(kept["sha256"].to_pylist(), kept["caption"].to_pylist(), strict=True))
    rows = tables.read_table(opened.source).replace_schema_metadata(None)
    usable = pa.array(
        status == "ok" and sha256 in captions
        for status, sha256 in zip(
            rows["status"].to_pylist(), rows["sha256"].to_pylist(), strict=True
        )
    )
    rows = rows.filter(usable)
    at = tables.SOURCE.get_field_index("caption")
    texts = pa.array([captions[sha256] for sha256 in rows["sha256"].to_pylist()], pa.string())
    rows = rows.set_column(at, tables.SOURCE.field(at), texts)
    return rows, {**describe(uri), "fingerprint": opened.fingerprint}


def describe(uri: str) -> dict[str, object]:
    """Return what a plan was asked to be made of, in the form that is kept with it."""
    return {"from": storage.absolute(uri.rstrip("/"))}
