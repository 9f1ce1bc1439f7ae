"""BLIP's spec: which bytes it means, which images it looks at, which text it chooses."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from captioning import weights
from captioning.base import Caption
from captioning.blip import BlipSpec

REVISION = "0123456789abcdef0123456789abcdef01234567"


def spec(captioner: Any = "blip", **fields: Any) -> BlipSpec:
    return BlipSpec(captioner=captioner, **fields)


@pytest.mark.parametrize(
    ("captioner", "found", "wanted"),
    [
        ("blip", "a text", True),
        ("blip", None, True),
        ("sidecar_or_blip", "a text", False),
        ("sidecar_or_blip", None, True),
        ("sidecar_or_blip", " \x00\n", True),
        ("blip_with_sidecar_kept", "a text", True),
    ],
)
def test_blip_looks_only_where_its_text_can_be_chosen(
    captioner: str, found: str | None, wanted: bool
) -> None:
    assert spec(captioner).wants(found) is wanted


@pytest.mark.parametrize(
    ("captioner", "found", "generated", "chosen"),
    [
        ("blip", " s ", "b", Caption(text="b", source="blip", blip="b")),
        ("blip", "s", "arafed", None),
        ("sidecar_or_blip", " s ", None, Caption(text="s", source="sidecar", sidecar="s")),
        ("sidecar_or_blip", "", "b", Caption(text="b", source="blip", blip="b")),
        ("sidecar_or_blip", None, " ", None),
        (
            "blip_with_sidecar_kept",
            " s ",
            "b b b",
            Caption(text="b", source="blip", sidecar="s", blip="b"),
        ),
        ("blip_with_sidecar_kept", None, "b", Caption(text="b", source="blip", blip="b")),
        ("blip_with_sidecar_kept", "s", "", None),
    ],
)
def test_the_caption_is_chosen_by_source(
    captioner: str, found: str | None, generated: str | None, chosen: Caption | None
) -> None:
    assert spec(captioner).choose(found, generated) == chosen


def test_a_hub_id_stands_for_a_commit() -> None:
    assert spec().network_identity["weights"] == (
        "Salesforce/blip-image-captioning-base@82a37760796d32b1411fe092ab5d4e227313294b"
    )
    assert spec(model=weights.LARGE).network_identity["weights"].startswith(weights.LARGE + "@2227")
    own = spec(model="someone/blip", revision=REVISION)
    assert own.network_identity["weights"] == f"someone/blip@{REVISION}"


def test_a_folder_stands_for_its_bytes_wherever_it_lies(random_blip: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in random_blip.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    here, there = spec(model=str(random_blip)), spec(model=str(moved))
    assert here.identity == there.identity
    with (moved / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert here.identity != spec(model=str(moved)).identity


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "bf16"),
        ("beams", 3),
        ("prefix", "a"),
        ("max_new_tokens", 9),
        ("batch_size", 2),
    ],
)
def test_every_parameter_is_in_both_identities(field: str, value: Any) -> None:
    changed = spec(**{field: value})
    assert changed.network_identity != spec().network_identity
    assert changed.identity != spec().identity


def test_the_choice_of_sources_is_in_the_recipes_identity_only() -> None:
    other = spec("sidecar_or_blip", max_characters=5)
    assert other.network_identity == spec().network_identity
    assert other.identity != spec().identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "someone/blip"}, "give the commit"),
        ({"model": "blip"}, "no hub id"),
        ({"model": "./blip", "revision": REVISION}, "leave revision out"),
        ({"revision": "main"}, "revision"),
        ({"precision": "fp16"}, "precision"),
        ({"beams": 0}, "beams"),
        ({"top_p": 0.9}, "top_p"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_specs_travel() -> None:
    made = spec("sidecar_or_blip", prefix="a photograph of")
    assert pickle.loads(pickle.dumps(made)) == made
