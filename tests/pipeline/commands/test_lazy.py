"""The list of commands is read off their source, and is what the modules have."""

import subprocess
import sys
from importlib import import_module

import typer
from typer.main import get_group

from pipeline.commands.cli import MODULES, app


def test_the_list_is_what_the_modules_have() -> None:
    whole = typer.Typer()
    for module in MODULES:
        whole.add_typer(import_module(f"pipeline.commands.{module}").app)
    commands = get_group(whole).commands
    listed = get_group(app).commands
    assert list(listed) == list(commands)
    for name, command in commands.items():
        assert listed[name].get_short_help_str(200) == command.get_short_help_str(200)


def test_help_imports_none_of_what_the_commands_work_with() -> None:
    asked = (
        "import sys\nfrom pipeline.commands.cli import main\n"
        "sys.argv = ['controlnet-factory', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert _imported(asked).isdisjoint({"numpy", "pyarrow", "pydantic", "cv2", "torch", "ray"})


def test_status_imports_no_networks_and_no_cluster() -> None:
    imported = _imported("import pipeline.commands.dataset")
    assert "pyarrow" in imported
    assert imported.isdisjoint({"cv2", "torch", "ray", "transformers"})


def _imported(program: str) -> set[str]:
    """Return which modules a new Python has after `program`."""
    program += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())
