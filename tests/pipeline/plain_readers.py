"""What readers see that know nothing of commits: every ``shards/*.tar``, by webdataset."""

import gc
import warnings
from pathlib import Path

import webdataset

from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import differences


def assert_each_sample_once(dataset: Path) -> None:
    """Read what plain readers read, and find every sample of the manifest in it, once."""
    tars = sorted(str(path) for path in (dataset / "shards").glob("*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        read = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
        keys = [sample["__key__"] for sample in read]
        del read
        gc.collect()  # it leaves its files to the collector
    assert sorted(keys) == sorted(Dataset.open(str(dataset)).view().keys())


def assert_as_undisturbed(dataset: Path, undisturbed: Path) -> None:
    """Compare the bytes with those of a build without a fault, and read both as others do."""
    assert differences(str(dataset), str(undisturbed)) == []
    assert_each_sample_once(dataset)
