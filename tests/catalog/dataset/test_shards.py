"""Tars: what goes in comes out, in one spelling, readable by Python's own tarfile."""

import contextlib
import io
import tarfile
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.dataset.shards import ShardWriter, pack, unpack
from catalog.errors import CorruptSampleError
from catalog.sample import Sample, canonical_json, sha256_hex

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
CONDITIONS = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
SAMPLES = st.builds(
    Sample,
    key=st.text("0123456789abcdef", min_size=32, max_size=32),
    image=st.binary(max_size=1500),
    image_format=st.sampled_from(["jpg", "png"]),
    conditions=st.dictionaries(CONDITIONS, st.binary(max_size=1500), max_size=3),
    caption=TEXT,
    metadata=st.dictionaries(TEXT, JSON, max_size=4),
)


@given(SAMPLES)
def test_a_sample_comes_back(sample: Sample) -> None:
    assert unpack(pack(sample)) == sample


@given(st.lists(SAMPLES, max_size=4, unique_by=lambda sample: sample.key))
def test_python_reads_the_tar_and_members_are_sorted(samples: list[Sample]) -> None:
    file = io.BytesIO()
    writer = ShardWriter(file)
    blocks = [writer.add(sample) for sample in samples]
    writer.close()
    data = file.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        for sample in samples:
            content = tar.extractfile(f"{sample.key}.{sample.image_format}")
            assert content is not None
            assert content.read() == sample.image
    assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} <= {
        (0, 0, "", 0o644)
    }
    for sample, block in zip(samples, blocks, strict=True):
        names = [member.name for member in members if member.name.startswith(sample.key)]
        assert names == sorted(names)
        assert len(names) == 3 + len(sample.conditions)
        piece = data[block.offset : block.offset + block.length]
        assert sha256_hex(piece) == block.sha256
        assert unpack(piece) == sample


@given(SAMPLES)
def test_equal_samples_give_equal_bytes(sample: Sample) -> None:
    other = Sample(
        key=sample.key,
        image=sample.image,
        image_format=sample.image_format,
        conditions=dict(reversed(sample.conditions.items())),
        caption=sample.caption,
        metadata=dict(reversed(sample.metadata.items())),
    )
    assert pack(other) == pack(sample)


@given(SAMPLES, st.data())
def test_unpack_raises_one_error_or_none_on_any_damage(sample: Sample, data: Any) -> None:
    block = bytearray(pack(sample))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(block)))
    for broken in (bytes(block), bytes(block[:cut])):
        with contextlib.suppress(CorruptSampleError):
            unpack(broken)


@pytest.mark.parametrize("end", ["json", "txt", "png"])
def test_a_block_without_a_part_is_refused(make_sample: Any, end: str) -> None:
    block = pack(make_sample(1))
    kept = b""
    with tarfile.open(fileobj=io.BytesIO(block)) as tar:
        for member in tar:
            if not member.name.endswith(f".{end}"):
                kept += block[member.offset : member.offset_data + -(-member.size // 512) * 512]
    with pytest.raises(CorruptSampleError):
        unpack(kept)


def test_a_block_of_two_keys_is_refused(make_sample: Any) -> None:
    with pytest.raises(CorruptSampleError, match="not one sample"):
        unpack(pack(make_sample(1)) + pack(make_sample(2)))


@given(JSON)
@example({"b": 1, "a": [1.0, None, "ä"]})
def test_canonical_json_has_one_spelling_and_comes_back(value: Any) -> None:
    import json

    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == data


def test_canonical_json_is_sorted_utf8_without_spaces_or_nan() -> None:
    assert canonical_json({"b": 1, "a": "ä"}) == '{"a":"ä","b":1}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})
