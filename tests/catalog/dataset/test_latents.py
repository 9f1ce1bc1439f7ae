"""Latents beside the shards: read as they were written, or an error."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors import safe_open

from catalog.dataset.commits import Commit, StoredFile
from catalog.dataset.latents import (
    Identity,
    Latents,
    LatentsFolder,
    find_latents,
    forget_stale,
    image_name,
    text_name,
)
from catalog.errors import CorruptSampleError, DatasetError

IDENTITY = Identity(vae="5eed", text_encoder=None, precision="fp32", stored="fp32", mirrored=False)
ONE = np.arange(8, dtype=np.float32).reshape(2, 2, 2)


def unit(index: int, shard: str = "ab") -> Commit:
    file = StoredFile(name=f"{index:06d}.tar", bytes=1, sha256=shard)
    return Commit(
        unit_id=f"{index:032x}",
        index=index,
        fingerprint="f",
        shard=file,
        rows=file,
        counts={"ok": 1},
        environment={},
    )


def folder_of(path: Path, **changes: object) -> LatentsFolder:
    folder = LatentsFolder(str(path), replace(IDENTITY, **changes))  # type: ignore[arg-type]
    folder.claim()
    return folder


@given(
    made=st.dictionaries(
        st.text("0123456789abcdef", min_size=4, max_size=4).map(image_name),
        arrays_of.arrays(
            st.sampled_from([np.float32, np.float16]),
            st.tuples(*(st.integers(1, 4) for _ in range(3))),
            elements=st.floats(-100, 100, width=16),
        ),
        min_size=1,
        max_size=6,
    ),
    stored=st.sampled_from(["fp32", "fp16"]),
    cut=st.integers(0, 6),
)
def test_what_is_written_is_read_in_any_division(made, stored, cut, tmp_path_factory):
    folder = folder_of(tmp_path_factory.mktemp("latents"), stored=stored)
    names = list(made)
    for index, part in enumerate((names[:cut], names[cut:])):
        if part:
            folder.commit(unit(index), {name: made[name] for name in part}, len(part))
    folder.fold([unit(0), unit(1)])
    opened = folder.open()
    assert opened is not None
    for name, array in made.items():
        found = opened.array(name)
        assert found.shape == array.shape
        assert np.array_equal(found, array.astype(found.dtype))
    keys = [name.partition("/")[2] for name in names]
    assert opened.lacking([*keys, "another"]) == 1


def test_any_reader_of_safetensors_reads_a_unit(tmp_path):
    folder = folder_of(tmp_path)
    made = folder.commit(unit(0), {image_name("k"): ONE}, 1)
    with safe_open(Path(folder.uri, made.file.name), "np") as file:
        assert np.array_equal(file.get_tensor(image_name("k")), ONE)


def test_changed_bytes_are_an_error(tmp_path):
    folder = folder_of(tmp_path)
    made = folder.commit(unit(0), {image_name("k"): ONE}, 1)
    opened = folder.fold([unit(0)])
    path = Path(folder.uri, made.file.name)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CorruptSampleError, match="changed after the commit"):
        opened.array(image_name("k"))
    with pytest.raises(DatasetError, match="run precompute again"):
        opened.array(text_name("never seen"))


def test_files_are_hashed_again(tmp_path):
    folder = folder_of(tmp_path)
    made = [folder.commit(unit(at), {image_name(f"k{at}"): ONE}, 1) for at in range(3)]
    assert folder.faults() == []
    Path(folder.uri, made[0].file.name).unlink()
    path = Path(folder.uri, made[2].file.name)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    missing, changed = sorted(folder.faults())
    assert "FileNotFoundError" in missing
    assert f"committed {made[2].file.sha256}" in changed


def test_the_first_commit_of_a_unit_stays(tmp_path):
    folder = folder_of(tmp_path)
    first = folder.commit(unit(0), {image_name("k"): ONE}, 1)
    assert folder.commit(unit(0), {image_name("k"): ONE + 1}, 1) == first
    assert folder.fold([unit(0)]).array(image_name("k"))[0, 0, 0] == 0
    assert len(list(Path(folder.uri).glob("*.safetensors"))) == 1


def test_a_text_of_several_units_is_listed_once(tmp_path):
    folder = folder_of(tmp_path, text_encoder="7e87")
    for index in range(2):
        folder.commit(unit(index), {text_name(""): ONE[:1]}, 0)
    assert folder.fold([unit(0), unit(1)]).array(text_name("")).shape == (1, 2, 2)


def test_a_rewritten_tar_makes_its_latents_stale(tmp_path):
    folder = folder_of(tmp_path)
    for index in range(2):
        folder.commit(unit(index), {image_name(f"k{index}"): ONE}, 1)
    folder.fold([unit(0), unit(1)])
    rewritten = unit(1, shard="cd")
    assert [one.index for one in folder.committed([unit(0), rewritten])] == [0]
    assert forget_stale(str(tmp_path), [unit(0), rewritten]) == 1
    assert folder.open() is None
    assert len(list(Path(folder.uri).glob("*.safetensors"))) == 1
    folder.commit(rewritten, {image_name("k1"): ONE + 1}, 1)
    opened = folder.fold([unit(0), rewritten])
    assert opened.array(image_name("k1"))[0, 0, 0] == 1
    assert forget_stale(str(tmp_path), [unit(0), rewritten]) == 0


def test_other_identities_lie_in_other_folders(tmp_path):
    changes = [{}, {"vae": "0"}, {"text_encoder": "0"}, {"stored": "fp16"}, {"mirrored": True}]
    for change in [*changes, {"precision": "bf16"}]:
        folder_of(tmp_path, **change)
    found = find_latents(str(tmp_path))
    assert len({folder.uri for folder in found}) == 6
    assert IDENTITY in [folder.identity for folder in found]


def test_a_folder_of_another_format_is_passed_over(tmp_path):
    folder = folder_of(tmp_path)
    path = Path(folder.uri, "identity.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format": 99}))
    assert find_latents(str(tmp_path)) == []


def test_mirrored_latents_count_only_with_the_others(tmp_path):
    folder = folder_of(tmp_path, mirrored=True)
    folder.commit(unit(0), {image_name("k"): ONE}, 1)
    opened: Latents = folder.fold([unit(0)])
    assert opened.lacking(["k"]) == 1
