"""How the typer commands start."""

from collections.abc import Callable
from typing import Any

import typer


def run_command(main: Callable[..., Any]) -> None:
    """Run a command's function on the command line; errors that are no user's mistake keep Python's own traceback."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
