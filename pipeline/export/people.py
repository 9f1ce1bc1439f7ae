"""The people of a dataset as files that other tools read, beside its pictures in folders.

conditions/<name>/<key>.json   OpenPose's format, a file an image
people/<name>.json             COCO's format, one file
"""

import json
from pathlib import Path
from typing import Any, Literal

from catalog.dataset.dataset import View
from catalog.publish.folders import CONDITIONS, IMAGES
from catalog.sample import Sample
from detectors.keypoints import Person
from detectors.people_formats import PERSON, coco_annotation, openpose_json
from pipeline.errors import UsageError

PeopleFormat = Literal["openpose", "coco"]
FORMATS: tuple[PeopleFormat, ...] = ("openpose", "coco")


def require_people(view: View) -> None:
    """Raise UsageError where no condition of a view knows people."""
    if not len(view) or not _people(view.read(0)):
        known = ", ".join(view.conditions)
        raise UsageError(f"--people: none of the conditions ({known}) knows people")


class People:
    """Writes the people of all conditions that know any, a sample after the other.

    Args:
        out: the folder that `catalog.publish.folders.write_folders` writes.
        form: of the files.
    """

    def __init__(self, out: Path, form: PeopleFormat) -> None:
        self._out = out
        self._form = form
        self._coco: dict[str, dict[str, Any]] = {}
        self._added = 0

    def add(self, sample: Sample) -> None:
        """Write a sample's file, or keep its people for the one file of all."""
        index, self._added = self._added, self._added + 1
        for name, people in _people(sample).items():
            if self._form == "coco":
                _add(self._coco.setdefault(name, _empty()), sample, index, people)
                continue
            said = json.dumps(openpose_json(people, **_size(sample)))
            (self._out / CONDITIONS / name / f"{sample.key}.json").write_text(said)

    def finish(self) -> None:
        """Write the files that hold the people of all samples."""
        for name, content in self._coco.items():
            (self._out / "people").mkdir(exist_ok=True)
            (self._out / "people" / f"{name}.json").write_text(json.dumps(content))


def _people(sample: Sample) -> dict[str, list[Person]]:
    noted = sample.metadata.get("conditions", {})
    return {
        name: [Person.from_json(person) for person in told["people"]]
        for name, told in noted.items()
        if "people" in told
    }


def _empty() -> dict[str, Any]:
    return {"images": [], "annotations": [], "categories": [PERSON]}


def _size(sample: Sample) -> dict[str, int]:
    return {side: sample.metadata[side] for side in ("height", "width")}


def _add(content: dict[str, Any], sample: Sample, index: int, people: list[Person]) -> None:
    file = f"{IMAGES}/{sample.key}.{sample.image_format}"
    content["images"].append({"id": index, "file_name": file, **_size(sample)})
    for person in people:
        if person.found:
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {"id": number, "image_id": index, **coco_annotation(person)}
            )
