"""How the typer commands start, and how they tell a user's mistake."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from fer_lightning.errors import InputError


def make_command(main: Callable[..., Any]) -> typer.Typer:
    """The command of a function, whose arguments are its options.

    A user's mistake, or a file that cannot be read or written, is told in one sentence with exit code 1; any other
    error keeps Python's own traceback.
    """

    @wraps(main)
    def told(**arguments: Any) -> None:
        try:
            main(**arguments)
        except (InputError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from error

    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(told)
    return command


def run_command(main: Callable[..., Any]) -> None:
    """Run the command of a function on the command line."""
    make_command(main)()
