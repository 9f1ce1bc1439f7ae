"""Maps are what they were when somebody last looked at them."""

import pytest

from catalog.images import decode_image
from tests.goldens.regenerate import FOLDER, GOLDENS, make


@pytest.mark.parametrize("name", GOLDENS)
def test_a_map_is_its_golden(name: str) -> None:
    golden = decode_image((FOLDER / name).read_bytes())[:, :, 0]
    assert (make(GOLDENS[name]) == golden).all()
    assert 0.02 < (golden > 0).mean() < 0.5
