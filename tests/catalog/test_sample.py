"""What a row says of an image that gave no sample."""

import io

from catalog.sample import failed, rejected


def test_a_reason_reads_the_same_in_every_process() -> None:
    """It is hashed with its row; an object's address is another one in every process."""
    kept = [io.BytesIO() for _ in range(2)]
    texts = [f"cannot identify image file {file!r}" for file in kept]
    assert texts[0] != texts[1]
    assert failed(ValueError(texts[0])) == failed(ValueError(texts[1]))
    assert rejected("label", detail=texts[0]) == rejected("label", detail=texts[1])
    assert rejected("label", detail="id 0x1f of 30").detail == "id 0x1f of 30"
