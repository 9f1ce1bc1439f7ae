import pytest

from training.errors import SamplingError
from training.sample.prompts import DEFAULT_PROMPT, choose_prompt, foreign_syntax


@pytest.mark.parametrize(
    ("mode", "text", "prompt"),
    [
        ("none", None, ""),
        ("default", None, DEFAULT_PROMPT),
        ("automatic", None, DEFAULT_PROMPT),
        ("user", "a cat", "a cat"),
        ("user", "", ""),
    ],
)
def test_prompt_modes(mode, text, prompt):
    assert choose_prompt(mode, text) == prompt


@pytest.mark.parametrize(
    ("mode", "text"), [("user", None), ("none", "a cat"), ("default", ""), ("automatic", "a")]
)
def test_a_prompt_that_does_not_fit_its_mode_is_refused(mode, text):
    with pytest.raises(SamplingError, match="mode"):
        choose_prompt(mode, text)


def test_syntax_of_other_programs_is_found() -> None:
    prompt = "a (red:1.3) car (old), [sky], BREAK, <lora:x:1> at 12:30 (two: three)"
    assert foreign_syntax(prompt) == ["(red:1.3)", "BREAK", "<lora:x:1>"]
    assert foreign_syntax("a coffee BREAKs, (a house), 1:2") == []
