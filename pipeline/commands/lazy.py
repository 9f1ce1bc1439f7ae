"""Commands whose modules are imported when they are asked for, and not to be listed.

The list is read off the modules' source: a function under ``@app.command()`` is a command, and the
first paragraph of its docstring says what it does.
"""

import ast
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_name, get_group


def group_of(modules: Sequence[str]) -> type[TyperGroup]:
    """Return the kind of group that `typer.Typer` is given as its `cls`.

    Args:
        modules: names in this package, in the order of the list; each has its commands in
            `app`, and where that has a name itself, they are commands below it.
    """

    class Group(TyperGroup):
        def __init__(self, **keys: Any) -> None:
            super().__init__(**keys)
            self._homes: dict[str, str] = {}
            for module in modules:
                for name, line in _listed(Path(__file__).parent / f"{module}.py"):
                    self._homes[name] = f"{__package__}.{module}"
                    self.add_command(TyperCommand(name, help=line))

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args and args[0] in self._homes:
                holder = typer.Typer(rich_markup_mode=self.rich_markup_mode)
                holder.add_typer(import_module(self._homes[args[0]]).app)
                self.add_command(get_group(holder).commands[args[0]])
            return super().resolve_command(ctx, args)

    return Group


def _listed(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the names of a module's commands with what each does; one where `app` has a name."""
    tree = ast.parse(source.read_text())
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name("app")], value=ast.Call(keywords=[*keywords])):
                said = {one.arg: ast.literal_eval(one.value) for one in keywords}
                if "name" in said:
                    yield said["name"], said["help"]
                    return
            case ast.FunctionDef(decorator_list=[ast.Call(func=ast.Attribute(attr="command"))]):
                (decorator,) = node.decorator_list
                assert isinstance(decorator, ast.Call)
                given = [ast.literal_eval(one) for one in decorator.args]
                paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
                yield (given or [get_command_name(node.name)])[0], paragraph
