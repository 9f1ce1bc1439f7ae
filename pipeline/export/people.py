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


def write_people(view: View, out: Path, form: PeopleFormat) -> None:
    """Write the people of all conditions that know any.

    Args:
        view: the samples.
        out: the folder that `catalog.publish.folders.write_folders` wrote.
        form: of the files.
    """
    coco: dict[str, dict[str, Any]] = {}
    for index in range(len(view)):
        sample = view.read(index)
        for name, people in _people(sample).items():
            if form == "coco":
                _add(coco.setdefault(name, _empty()), sample, index, people)
                continue
            said = openpose_json(
                people, height=sample.metadata["height"], width=sample.metadata["width"]
            )
            (out / CONDITIONS / name / f"{sample.key}.json").write_text(json.dumps(said))
    for name, content in coco.items():
        (out / "people").mkdir(exist_ok=True)
        (out / "people" / f"{name}.json").write_text(json.dumps(content))


def _people(sample: Sample) -> dict[str, list[Person]]:
    noted = sample.metadata.get("conditions", {})
    return {
        name: [Person.from_json(person) for person in told["people"]]
        for name, told in noted.items()
        if "people" in told
    }


def _empty() -> dict[str, Any]:
    return {"images": [], "annotations": [], "categories": [PERSON]}


def _add(content: dict[str, Any], sample: Sample, index: int, people: list[Person]) -> None:
    file = f"{IMAGES}/{sample.key}.{sample.image_format}"
    size = {side: sample.metadata[side] for side in ("height", "width")}
    content["images"].append({"id": index, "file_name": file, **size})
    for person in people:
        if person.found:
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {"id": number, "image_id": index, **coco_annotation(person)}
            )
