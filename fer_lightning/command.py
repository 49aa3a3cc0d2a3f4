"""How the typer commands start, and how they report a user's mistake."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from fer_lightning.errors import InputError


def make_command(main: Callable[..., Any]) -> typer.Typer:
    """Turn a function into a command, with its arguments as options.

    A user's mistake, or a file that cannot be read or written, is reported in one sentence with exit code 1; unexpected
    errors keep Python's own traceback.
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
    """Run a function as a command on the command line."""
    make_command(main)()
