"""What a table in a folder says of the images below it, by their file names.

``metadata.jsonl`` and ``metadata.csv``, as Hugging Face's ImageFolder and the training scripts of
diffusers have them: a row an image, its path below the folder in ``file_name``.
"""

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from catalog import storage
from catalog.source.texts import LIMITS, is_caption_name

NAMES = ("metadata.jsonl", "metadata.csv")
"""Names of such tables; where both name an image, the first table counts."""

FILE_NAME = "file_name"


def read_folder_table(uri: str, passed: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield the path of each image below the table's folder with its other fields, as JSON.

    Args:
        uri: of the table; its end says which kind it is.
        passed: counts the rows that name no file below the folder, or cannot be read.
    """
    name = uri.rpartition("/")[2]
    with storage.open_binary(uri) as file:
        for fields in _csv_rows(file) if name.endswith(".csv") else _json_rows(file):
            path = fields.pop(FILE_NAME, None) if isinstance(fields, dict) else None
            below = posixpath.normpath(path) if isinstance(path, str) and path else ".."
            if below.startswith(("../", "/")) or below in ("..", "."):
                passed[f"rows of {name} that name no file of its folder"] += 1
            else:
                yield below, json.dumps(fields)


def _json_rows(file: IO[bytes]) -> Iterator[Any]:
    lines = io.BufferedReader(file)  # type: ignore[type-var]  # of a remote file, bounded lines
    try:
        while line := lines.readline(LIMITS["json"] + 1):
            if line.strip():
                yield _object(line)
    finally:
        lines.detach()


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _csv_rows(file: IO[bytes]) -> Iterator[Any]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    try:
        for row in csv.DictReader(text):
            yield {
                name: value if is_caption_name(name) or name == FILE_NAME else _number(value)
                for name, value in row.items()
                if isinstance(name, str)  # more fields than the header has have no name
            }
    except csv.Error:  # what is left cannot be told apart
        yield None
    finally:
        text.detach()


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text
