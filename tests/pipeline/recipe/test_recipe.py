"""Recipes: mistakes are named with file, key path and line; the fingerprint names the bytes."""

import contextlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from detectors import weights
from detectors.base import Spec
from detectors.canny import CannySpec
from detectors.scribble import ScribbleSpec
from detectors.weights.checkpoints import CHECKPOINTS
from pipeline.errors import RecipeError
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import AnySpec, Recipe, load_recipe, shipped_recipes

_GOOD = """\
name: mine
seed: 3
image:
  resolution: 256
detectors:
  - detector: canny
    low: 80
"""


@pytest.fixture(autouse=True)
def _unpinned_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    """Put a stand-in where weights of unknown hash belong: a fingerprint is of what is there."""
    root = tmp_path_factory.mktemp("weights")
    for checkpoint in CHECKPOINTS.values():
        if checkpoint.sha256 is None:
            for name in (checkpoint.file, *checkpoint.beside):
                path = root / checkpoint.name / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"stand-in")
    monkeypatch.setenv(weights.FOLDERS, str(root))


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_recipe(str(path), overrides)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 3", "sead: 3", ["sead (line 2)", "did you mean 'seed'"]),
        ("  resolution: 256", "  resolutoin: 256", ["image.resolutoin (line 4)", "'resolution'"]),
        ("    low: 80", "    lo: 80", ["detectors.0.lo (line 7)", "did you mean 'low'"]),
        ("    low: 80", "    zzz: 80", ["detectors.0.zzz (line 7)", "known here: "]),
        ("resolution: 256", "resolution: 250", ["image.resolution (line 4)", "found 250"]),
        ("  resolution: 256", "  seed: 256", ["image.seed (line 4)", "not a field of this group"]),
        ("seed: 3", "seed: many", ["seed (line 2)", "'many'"]),
        ("    low: 80", "    low: [90, 80]", ["(line 7)", "runs backwards"]),
        ("- detector: canny", "- detector: cany", ["'cany'", "'canny'", "'hed'"]),
        ("name: mine", "name: Not Fit", ["name (line 1)"]),
        ("name: mine\n", "", ["name", "Field required"]),
        ("    low: 80", "  - detector: canny", ["not distinct"]),
        ("    low: 80", "    low: [", ["is not YAML"]),
        ("seed: 3", "seed: 2001-99-99", ["is not YAML", "month must be in 1..12"]),
        ("- detector: canny", "- condition: canny", ["detectors.0 (line 6)", "'detector'"]),
        ("image:\n  resolution: 256\n", "image: 5\n", ["image (line 3)", "found 5"]),
        (_GOOD, "", ["expected a mapping"]),
        (_GOOD, "- name: mine", ["holds list, expected a mapping"]),
        (_GOOD, "just words", ["holds str, expected a mapping"]),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    assert old in _GOOD
    with pytest.raises(RecipeError) as raised:
        load(tmp_path, _GOOD.replace(old, new))
    for part in ("mine.yaml", *said):
        assert part in str(raised.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = _GOOD.replace("seed: 3", "seed: -1").replace("low: 80", "low: -1")
    with pytest.raises(RecipeError, match=r"(?s)seed \(line 2\).*detectors\.0\.low \(line 7\)"):
        load(tmp_path, text)


def test_a_mistake_in_an_item_is_no_mistake_of_the_list(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        load(tmp_path, _GOOD.replace("low: 80", "lo: 80"))
    assert len(str(raised.value).splitlines()) == 2


def test_overrides_reach_fields_groups_and_items(tmp_path: Path) -> None:
    made = load(
        tmp_path, _GOOD, "seed=9", "image.crop=none", "detectors.0.low=[1, 2]", "rules.min_side=5"
    )
    assert (made.seed, made.image.crop, made.rules.min_side) == (9, "none", 5)
    assert made.detectors[0].low == (1, 2)
    (detector,) = load(tmp_path, _GOOD, "detectors.0={detector: canny, low: 9}").detectors
    assert detector == CannySpec(low=9)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "write key.path=value"),
        ("=1", "write key.path=value"),
        ("seed=[", "not YAML"),
        ("seed=2001-99-99", "not YAML"),
        ("sead=1", "did you mean 'seed'"),
        ("detectors.1.low=1", "the list, which is 0 to 0"),
        ("detectors.x.low=1", "the list, which is 0 to 0"),
        ("detectors.².low=1", "the list, which is 0 to 0"),
        ("detectors.-1.low=1", "the list, which is 0 to 0"),
        ("detectors=[]", "at least 1 item"),
        ("rules.min_sid=1", "rules.min_sid: unknown field; did you mean 'min_side'"),
        ("rules.min_side=-1", "rules.min_side: "),
        ("seed.x=1", "a value, not a group"),
        ("seed.x.y=1", "nothing lies at seed.x"),
        ("image.resolution=70", "multiple of 64"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace("[", r"\[").replace(".", r"\.")):
        load(tmp_path, _GOOD, override)


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match=r"a shipped one: .*canny.*scribble"):
        load_recipe("nosuch")


_OTHER: dict[str, Any] = {
    "name": "other", "seed": 1, "samples_per_unit": 7, "batch_size": 3, "precision": "bf16",
    "ranking": "popularity", "max_images": 5, "image.resolution": 64, "image.crop": "none",
    "image.format": "png", "image.jpeg_quality": 50, "image.reduced_decode": False,
    "rules.max_pixels": 10, "rules.max_bytes": 10, "rules.max_aspect": 2, "rules.min_side": 9,
    "rules.filter": "a < 1", "rules.near_duplicates": 6, "rules.damaged_jpeg": False,
    "rules.max_grey_tail": 0.5, "rules.min_contrast": 9, "rules.min_chroma": 9,
    "rules.min_sharpness": 9, "rules.max_nsfw": 0.5, "rules.max_coverage": 0.9,
    "rules.min_coverage": 0.5, "labels.suffix": ".png", "detectors.0.condition": "edges",
    "detectors.0.low": 3, "detectors.0.gap": 3, "captions.when_missing": "reject",
    "captions.max_characters": 9, "format": 2,
}  # fmt: skip


def leaves(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict) and value:
        return {leaf for key in value for leaf in leaves(value[key], f"{path}.{key}".strip("."))}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {leaf for at, one in enumerate(value) for leaf in leaves(one, f"{path}.{at}")}
    return {path}


def test_every_field_that_changes_bytes_changes_the_fingerprint() -> None:
    sidecar = "captions.captioner=sidecar"
    base = load_recipe("canny", ["training=null", sidecar])
    constants = {"detectors.0.detector", "captions.captioner", "labels", "training"}
    assert leaves(base.to_dict()) - constants == _OTHER.keys() - {"labels.suffix"}
    made = [
        load_recipe("canny", [sidecar, f"{name}={json.dumps(value)}"])
        for name, value in _OTHER.items()
    ]
    assert len({base.fingerprint, *(recipe.fingerprint for recipe in made)}) == len(_OTHER) + 1


_OTHER_BLIP: dict[str, Any] = {
    "captioner": "sidecar_or_blip", "model": "Salesforce/blip-image-captioning-large",
    "revision": "0" * 40, "precision": "bf16", "beams": 2, "prefix": "a", "max_new_tokens": 9,
    "batch_size": 3, "max_characters": 9,
}  # fmt: skip


def test_every_field_of_blip_changes_the_fingerprint() -> None:
    base = load_recipe("canny", ["captions.captioner=blip"])
    assert base.to_dict()["captions"].keys() == _OTHER_BLIP.keys()
    made = [
        load_recipe("canny", ["captions.captioner=blip", f"captions.{name}={json.dumps(other)}"])
        for name, other in _OTHER_BLIP.items()
    ]
    prints = {base.fingerprint, *(recipe.fingerprint for recipe in made)}
    assert len(prints) == len(_OTHER_BLIP) + 1


def _words(schema: Any) -> list[str]:
    """Every name that a field of the schema may be given."""
    if isinstance(schema, list):
        return [word for one in schema for word in _words(one)]
    if not isinstance(schema, dict):
        return []
    own = [word for word in schema.get("enum", ()) if isinstance(word, str)]
    return own + _words(list(schema.values()))


_WORDS = ["other", ".png", *dict.fromkeys(_words(Recipe.model_json_schema()))]


def _others(value: Any) -> list[Any]:
    """Values to try in place of one; not all of them will be valid."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value / 2, value // 2, 2 * value]
    if isinstance(value, list):
        others = [value[:-1], value[-1:] * len(value), [*value[:-1], 1]]
        return [other for other in others if other != value]
    return [256, *_WORDS] if value is None else [word for word in _WORDS if word != value]


def _recipe_of(spec: dict[str, Any]) -> Recipe:
    fields = {"name": "mine", "detectors": [spec], "labels": {"suffix": ".png"}}
    return Recipe.model_validate(fields)


def _fingerprint_with(spec: dict[str, Any], path: str) -> str | None:
    """The fingerprint with another valid value at `path`, or None where there is none."""
    *parents, last = path.split(".")
    copy = json.loads(json.dumps(spec))
    group = copy
    for step in parents:
        group = group[step]
    for other in _others(group[last]):
        group[last] = other
        with contextlib.suppress(ValidationError):
            return _recipe_of(copy).fingerprint
    return None


@pytest.mark.parametrize("model", get_args(get_args(AnySpec)[0]))
def test_every_field_of_every_detector_changes_the_fingerprint(model: type[Spec]) -> None:
    choices = {name: get_args(field.annotation) for name, field in model.model_fields.items()}
    needed = {name: choices[name][0] for name in choices if model.model_fields[name].is_required()}
    spec = model(**needed).model_dump(mode="json")
    free = sorted(leaf for leaf in leaves(spec) if len(choices.get(leaf, ())) != 1)
    made = [_fingerprint_with(spec, leaf) for leaf in free]
    assert "condition" in free
    assert None not in made
    assert len({_recipe_of(spec).fingerprint, *made}) == len(free) + 1


def test_the_fingerprint_survives_the_order_of_keys_and_spelled_out_defaults() -> None:
    base = load_recipe("scribble")
    fields = dict(reversed(base.to_dict().items()))
    assert Recipe.model_validate(fields).fingerprint == base.fingerprint
    short = {"name": "mine", "detectors": [{"detector": "canny"}]}
    long = {**Recipe.model_validate(short).to_dict(), "seed": 0}
    assert Recipe.model_validate(long).fingerprint == Recipe.model_validate(short).fingerprint


def test_execution_and_training_stay_out_of_the_fingerprint() -> None:
    base = load_recipe("canny")
    assert not Execution.model_fields.keys() & Recipe.model_fields.keys()
    assert load_recipe("canny", ["training=null"]).fingerprint == base.fingerprint


def test_the_checkpoint_is_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_recipe("hed").fingerprint
    other = load_recipe("hed", ["detectors.0.checkpoint=controlnet_hed"]).fingerprint
    monkeypatch.setattr("detectors.weights.identity", lambda name: "retrained")
    assert len({before, other, load_recipe("hed").fingerprint}) == 3


def test_a_version_of_a_detector_is_in_the_fingerprints_of_its_recipes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_recipe("scribble").versions == {"scribble": 2}
    assert load_recipe("scribble", ["detectors.0.mode=fixed"]).versions == {}
    before = {name: load_recipe(name) for name in ("scribble", "canny")}
    whole = {name: (one.fingerprint, one.map_fingerprints) for name, one in before.items()}
    monkeypatch.setattr(ScribbleSpec, "version", 1)
    assert before["scribble"].fingerprint != whole["scribble"][0]
    assert before["scribble"].map_fingerprints != whole["scribble"][1]
    assert (before["canny"].fingerprint, before["canny"].map_fingerprints) == whole["canny"]


_BEYOND = {"tile", "low_quality", "grey", "colour_palette", "xdog", "inpaint"}
_BEYOND |= {"pidinet", "depth_anything", "seg_eomt", "dwpose", "teed", "vitpose", "normal_tipsv2"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_whole(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.fingerprint) == 32
    assert recipe.training is not None
    source = "# Beyond the paper: " if name in _BEYOND else "# Paper, section 3.5, "
    assert shipped_recipes()[name].read_text().startswith(source)
    again = Recipe.model_validate(json.loads(recipe.to_json())["recipe"])
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint


def test_a_preset_states_what_a_gpu_wants_and_yields_to_what_is_set_beside_it() -> None:
    made = load_recipe("hed", ["preset=gpu"])
    assert (made.precision, made.batch_size, made.execution.device) == ("bf16", 32, "cuda")
    assert (made.captions.precision, made.captions.batch_size) == ("bf16", 256)
    assert made.fingerprint != load_recipe("hed").fingerprint
    own = load_recipe("hed", ["batch_size=8", "preset=gpu", "captions.captioner=sidecar"])
    assert (own.precision, own.batch_size, own.captions.captioner) == ("bf16", 8, "sidecar")
    plain = load_recipe("canny", ["preset=gpu", "captions.captioner=sidecar"])
    assert plain.fingerprint == load_recipe("canny", ["captions.captioner=sidecar"]).fingerprint
    with pytest.raises(RecipeError, match="preset=tpu: unknown; expected gpu"):
        load_recipe("canny", ["preset=tpu"])


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_preset_suits_every_shipped_recipe(name: str) -> None:
    assert load_recipe(name, ["preset=gpu"]).execution.device == "cuda"


def test_the_papers_thirteen_are_shipped_and_start_from_each_other() -> None:
    starts = {name: load_recipe(name).training.start for name in shipped_recipes()}
    assert len(starts.keys() - _BEYOND) == 13
    assert {name: start for name, start in starts.items() if start} == {
        "hough": "canny",
        "scribble": "canny",
        "normal_midas": "normal_diode",
    }


def test_a_recipe_shows_the_colours_of_the_one_it_starts_from() -> None:
    """The normals of both have one convention, also where it is a detector's default."""
    recipes = {name: load_recipe(name) for name in shipped_recipes()}
    colours = {
        name: [getattr(spec, "convention", None) for spec in recipe.detectors]
        for name, recipe in recipes.items()
    }
    starts = {name: recipe.training.start for name, recipe in recipes.items()}
    for name, start in starts.items():
        if start is not None and colours[name] != [None]:
            assert colours[name] == colours[start], name
    assert colours["normal_midas"] == ["midas"]


def test_a_build_waits_for_large_units_as_long_as_slow_networks_take() -> None:
    assert Execution().patience(images=3) == 3600
    assert Execution().patience(images=512) == 15 * 512 * 2
    assert Execution(no_progress_timeout=0).patience(images=512) == 0
    assert Execution(no_progress_timeout=60).patience(images=512) == 60
