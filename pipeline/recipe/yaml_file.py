"""YAML to a pydantic model, with errors that name the file, the line and the nearest known key."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import RecipeError

Model = TypeVar("Model", bound=BaseModel)
_Path = tuple[str | int, ...]

# PyYAML lets through what its own scalars raise, for example on 2001-99-99, and deep nesting.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


def load_model(model: type[Model], text: str, *, name: str, overrides: Iterable[str] = ()) -> Model:
    """Read a model from YAML.

    Args:
        model: the class to build.
        text: YAML.
        name: of the file, for messages.
        overrides: ``dotted.path=value`` with a YAML value; list items by number.

    Raises:
        RecipeError: not YAML, an unknown key, a wrong value or an override that leads nowhere.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except _NOT_YAML as error:
        raise RecipeError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if root is None or not isinstance(values, dict):
        raise RecipeError(f"{name} holds {type(values).__name__}, expected a mapping of fields")
    for override in overrides:
        _override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe(model, root, values, issue) for issue in _causes(error)]
        raise RecipeError(f"{name} does not validate:\n" + "\n".join(lines)) from error


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {override}: write key.path=value, for example --set seed=1")
    *parents, last = path.split(".")
    at: Any = values
    for depth, step in enumerate(parents):
        at = _step(at, step, override, ".".join(parents[: depth + 1]))
    try:
        value = yaml.safe_load(text)
    except _NOT_YAML as error:
        raise RecipeError(f"--set {override}: the value is not YAML: {text!r}") from error
    if isinstance(at, list):
        at[_index(at, last, override, path)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise RecipeError(
            f"--set {override}: {'.'.join(parents)} is a value, not a group of fields"
        )


def _step(at: Any, step: str, override: str, path: str) -> Any:
    if isinstance(at, list):
        return at[_index(at, step, override, path)]
    if isinstance(at, dict):
        return at.setdefault(step, {})
    raise RecipeError(f"--set {override}: nothing lies at {path}")


def _index(at: list[Any], step: str, override: str, path: str) -> int:
    if not step.isdecimal() or int(step) >= len(at):
        known = f"0 to {len(at) - 1}" if at else "empty"
        raise RecipeError(f"--set {override}: {path} is no item of the list, which is {known}")
    return int(step)


def _causes(error: ValidationError) -> list[Mapping[str, Any]]:
    """Leave out that a list is too short where an item is wrong: pydantic does not count it."""
    issues: list[Mapping[str, Any]] = list(error.errors())
    inside = {issue["loc"][:depth] for issue in issues for depth in range(len(issue["loc"]))}
    return [one for one in issues if one["type"] != "too_short" or one["loc"] not in inside]


def _describe(
    model: type[BaseModel], root: yaml.Node, values: Any, issue: Mapping[str, Any]
) -> str:
    kept = _given(values, issue["loc"], missing=issue["type"] == "missing")
    line = _line(root, kept)
    shown = ".".join(str(step) for step in kept) or "(the whole file)"
    where = f"  {shown} (line {line}): " if line else f"  {shown}: "
    if issue["type"] == "extra_forbidden":
        return where + f"unknown field{_did_you_mean(model, kept)}"
    if issue["type"] == "union_tag_invalid":
        context = issue["ctx"]
        return (
            where
            + f"unknown {context['discriminator']} {context['tag']!r}, "
            + (f"expected one of {context['expected_tags']}")
        )
    message = issue["msg"].removeprefix("Value error, ")
    return where + f"{message}; found {issue['input']!r}"


def _given(values: Any, path: _Path, *, missing: bool) -> _Path:
    """Return `path` without steps that are pydantic's own: union tags, and kinds of a value."""
    at, kept = values, []
    for step in path:
        inside = (isinstance(at, dict) and step in at) or (
            isinstance(at, list) and isinstance(step, int) and step < len(at)
        )
        if inside or (missing and step == path[-1]):
            kept.append(step)
            at = at[step] if inside else None
    return tuple(kept)


def _line(root: yaml.Node, path: _Path) -> int | None:
    """Return the line of what lies at `path`, or of the last of its groups that the file has."""
    node, line = root, None
    for step in path:
        found = _child(node, step)
        if found is None:
            break
        node, line = found
    return line


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line + 1
    return None


def _did_you_mean(model: type[BaseModel], path: _Path) -> str:
    known = _fields_below(model)
    if path[-1] in known:
        return "; not a field of this group"
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"


def _fields_below(model: type[BaseModel]) -> set[str]:
    """Every field name in the model's schema: few enough that one list serves all levels."""
    schema = model.model_json_schema()
    names = set(schema.get("properties", {}))
    for definition in schema.get("$defs", {}).values():
        names |= set(definition.get("properties", {}))
    return names
