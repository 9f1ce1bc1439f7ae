"""Generated texts by image and captioner, kept beyond a dataset: no picture is captioned twice.

A cache is a folder, local or remote: ``<captioner's fingerprint>/<unit_id>.parquet``, a file for
each unit that captioned images, created once and never changed; what such a file lacks, as other
captions lay beside the images then, is in ``<unit_id>-<hash>.parquet``. Workers share it without
locks, and two that caption the same image both keep its text: the file whose name comes first is
read.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from catalog import storage, tables
from catalog.sample import canonical_json, sha256_hex
from pipeline.errors import UsageError
from pipeline.unit.key_index import KeyIndex

CACHE_FOLDER = "CONTROLNET_FACTORY_CAPTIONS"
_BESIDE = "caption-cache"

_TEXTS = pa.schema([pa.field("sha256", pa.string()), pa.field("text", pa.string())])
_FILES_IN_HAND = 8  # a unit's images lie in few files, as both are cut from one ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A generated text, uncleaned, and a signature of the environment that it was made in."""

    text: str
    made_by: str


class CaptionCache:
    """The texts of one captioner; safe in several threads."""

    def __init__(self, folder: str, fingerprint: str) -> None:
        self._folder = storage.join(folder, fingerprint)
        self._lock = threading.Lock()
        self._names: list[str] | None = None
        self._read = lru_cache(_FILES_IN_HAND)(self._read_file)

    def find(self, sha256s: Iterable[str]) -> dict[str, Text]:
        """Return the texts of those images that have one, by sha256.

        What other workers keep after the first call is not seen: units share no images.
        """
        wanted = list(sha256s)
        with self._lock:
            if self._names is None:
                self._names = [
                    name for name in storage.list_names(self._folder) if name.endswith(".parquet")
                ]
                uris = [storage.join(self._folder, name) for name in self._names]
                self._index = KeyIndex.read(uris, "sha256")
            return {sha256: text for sha256 in wanted for text in self._texts_of(sha256)}

    def of_unit(self, unit_id: str) -> dict[str, Text]:
        """Return what was kept for a unit, also since the first `find`."""
        ours = (f"{unit_id}.", f"{unit_id}-")
        names = [name for name in storage.list_names(self._folder) if name.startswith(ours)]
        return {sha256: text for name in names for sha256, text in self._read_file(name).items()}

    def keep(self, unit_id: str, texts: Mapping[str, str], made_by: str) -> None:
        """Keep a unit's texts; those of an earlier attempt stay.

        Args:
            unit_id: of the unit that captioned them.
            texts: by sha256 of the image.
            made_by: signature of the environment.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            try:
                self._create(unit_id, texts, made_by)
            except FileExistsError:
                known = self.of_unit(unit_id)
                more = {sha256: text for sha256, text in texts.items() if sha256 not in known}
                name = f"{unit_id}-{sha256_hex(canonical_json(sorted(more)))[:8]}"
                with suppress(FileExistsError):
                    if more:
                        self._create(name, more, made_by)
        except PermissionError as error:
            raise UsageError(
                f"captions cannot be kept in {self._folder}: {error.strerror}; name another folder "
                f"with --caption-cache or {CACHE_FOLDER}"
            ) from error

    def _create(self, stem: str, texts: Mapping[str, str], made_by: str) -> None:
        rows = {"sha256": list(texts), "text": list(texts.values())}
        data = tables.to_parquet(pa.table(rows, schema=_TEXTS), {"made_by": made_by})
        storage.create_once(storage.join(self._folder, f"{stem}.parquet"), data)

    def _texts_of(self, sha256: str) -> Iterator[Text]:
        """Yield the image's text, or nothing."""
        assert self._names is not None
        for number in self._index.files_of(sha256):
            found = self._read(self._names[number]).get(sha256)
            if found is not None:
                yield found
                return

    def _read_file(self, name: str) -> dict[str, Text]:
        uri = storage.join(self._folder, name)
        made_by = tables.read_metadata(uri)["made_by"]
        rows = tables.read_table(uri)
        pairs = zip(rows["sha256"].to_pylist(), rows["text"].to_pylist(), strict=True)
        return {sha256: Text(text=text, made_by=made_by) for sha256, text in pairs}


def cache_folder(dataset: str, named: str | None) -> str:
    """Return the URI of the cache: the one named, else the environment's, else one beside."""
    named = named or os.environ.get(CACHE_FOLDER)
    if named:
        return named
    path = storage.local_path(dataset)
    if path is not None:
        return os.fspath(path.absolute().parent / _BESIDE)
    parent = dataset.rstrip("/").rpartition("/")[0]
    in_a_bucket = not parent.endswith("/")  # else the dataset is the whole bucket
    return storage.join(parent if in_a_bucket else dataset, _BESIDE)
