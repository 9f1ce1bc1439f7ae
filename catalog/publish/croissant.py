"""Croissant: the dataset described in JSON-LD, for search engines and loaders (mlcommons.org).

Every shard stands in it with its sha256, so whoever downloads the folder can check it.
"""

import json
from typing import Any

from catalog import storage
from catalog.dataset import commits
from catalog.dataset.dataset import MANIFEST, Dataset

CROISSANT = "croissant.json"

_VERSION = "http://mlcommons.org/croissant/1.0"

# The names that the format's 1.0 specification prescribes, each with its meaning.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {
    name: f"cr:{name}"
    for name in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject",
        "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
        "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
        "separator", "source", "subField", "transform",
    )
}  # fmt: skip

_COLUMNS = {
    "rank": ("sc:Integer", "place in the dataset's order, best first"),
    "key": ("sc:Text", "name of the sample's files in the shards"),
    "sha256": ("sc:Text", "of the source image's bytes"),
    "shard": ("sc:Text", "the tar that holds the sample"),
    "width": ("sc:Integer", "pixels, as stored"),
    "height": ("sc:Integer", "pixels, as stored"),
    "source_width": ("sc:Integer", "pixels, as found"),
    "source_height": ("sc:Integer", "pixels, as found"),
    "caption": ("sc:Text", "the chosen text; may be empty"),
    "parameters": ("sc:Text", "JSON: what each detector drew"),
}


def describe(dataset: Dataset, *, name: str, description: str, members: dict[str, str]) -> bytes:
    """Return a dataset's ``croissant.json``.

    Args:
        dataset: finished.
        name: of the dataset.
        description: one sentence.
        members: what a sample's files hold, by their ending: ``{"canny.png": "the canny map"}``.
    """
    record = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": description,
        "conformsTo": _VERSION,
        "version": "1.0.0",
        "distribution": [*_files(dataset), *_sets(dataset, members)],
        "recordSet": [_rows(), *(_members(end, text) for end, text in members.items())],
    }
    return json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"


def _files(dataset: Dataset) -> list[dict[str, Any]]:
    manifest = dataset.path(MANIFEST)
    sha256, size = storage.sha256_file(manifest), storage.size(manifest)
    return [
        _file(MANIFEST, "application/x-parquet", size, sha256),
        *(
            _file(f"{commits.SHARDS}/{shard.name}", "application/x-tar", shard.bytes, shard.sha256)
            for shard in _shards(dataset)
        ),
    ]


def _shards(dataset: Dataset) -> list[commits.StoredFile]:
    return [commit.shard for commit in commits.read_commits(dataset.uri)]


def _file(path: str, kind: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _sets(dataset: Dataset, members: dict[str, str]) -> list[dict[str, Any]]:
    kinds = {"jpg": "image/jpeg", "png": "image/png", "txt": "text/plain"}
    tars = [{"@id": f"{commits.SHARDS}/{shard.name}"} for shard in _shards(dataset)]
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"files/{end}",
            "name": f"files/{end}",
            "description": text,
            "containedIn": tars,
            "encodingFormat": kinds[end.rpartition(".")[2]],
            "includes": f"*.{end}",
        }
        for end, text in members.items()
    ]


def _rows() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "one row a sample, in rank order",
        "key": {"@id": "samples/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"samples/{name}",
                "name": f"samples/{name}",
                "description": text,
                "dataType": kind,
                "source": {"fileObject": {"@id": MANIFEST}, "extract": {"column": name}},
            }
            for name, (kind, text) in _COLUMNS.items()
        ],
    }


def _members(end: str, text: str) -> dict[str, Any]:
    """Describe the files of one ending: the sample's key, and what the file holds."""
    files = {"fileSet": {"@id": f"files/{end}"}}
    key_of_name = {"regex": "^(?:.*/)?([0-9a-f]{32})"}  # leaves a key as it is: readers join twice
    key = {
        "@type": "cr:Field",
        "@id": f"{end}/key",
        "name": f"{end}/key",
        "dataType": "sc:Text",
        "source": {**files, "extract": {"fileProperty": "filename"}, "transform": key_of_name},
        "references": {"field": {"@id": "samples/key"}},
    }
    content = {
        "@type": "cr:Field",
        "@id": f"{end}/content",
        "name": f"{end}/content",
        "dataType": "sc:Text" if end == "txt" else "sc:ImageObject",
        "source": {**files, "extract": {"fileProperty": "content"}},
    }
    return {
        "@type": "cr:RecordSet",
        "@id": end,
        "name": end,
        "description": text,
        "key": {"@id": f"{end}/key"},
        "field": [key, content],
    }
