"""`fer-app`: photos, videos and the webcam in a browser, on this machine alone."""

import errno
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fer_lightning.command import run_command
from fer_lightning.errors import InputError

LOCAL = "127.0.0.1"


def main(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model file, run folder, or newest; several can be compared. Default: the bundled model."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 needs --auth.")] = LOCAL,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    auth: Annotated[str | None, typer.Option(help="NAME:PASSWORD required to open the page.")] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest upload accepted, in MB.")] = 500,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest photo accepted, in pixels.")] = 100_000_000,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Serve the page until Ctrl-C."""
    _check(host, port, auth)
    with tempfile.TemporaryDirectory(prefix="fer-app-") as folder:
        # Set before Gradio is imported, since it reads them then.
        os.environ |= {
            "GRADIO_TEMP_DIR": f"{folder}/uploads",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",  # the browser's list of earlier runs, which it offers to keep elsewhere
        }
        _serve(model or [], Path(folder), host, port, auth, max_upload_mb, max_pixels, opens=open_)


def _check(host: str, port: int, auth: str | None) -> None:
    if auth is not None and not all(auth.partition(":")[::2]):
        raise InputError("--auth must be NAME:PASSWORD")
    if host not in (LOCAL, "localhost") and auth is None:
        raise InputError(f"--host {host} opens the page to other machines: add --auth NAME:PASSWORD")
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        wrong = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise InputError(f"port {port} of {host} cannot be used ({error.strerror}): choose another {wrong}") from error


def _serve(
    models: list[str],
    folder: Path,
    host: str,
    port: int,
    auth: str | None,
    max_upload_mb: int,
    max_pixels: int,
    *,
    opens: bool,
) -> None:
    try:
        from fer_lightning.web.server import create_app, serve
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'fer-lightning[app]'") from error
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = max_pixels
    app = create_app(
        _by_name(models),
        folder / "results",
        folder / "uploads",
        auth=auth,
        max_upload_bytes=max_upload_mb * 1_000_000,
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(f"The page is at {address} (Ctrl-C to stop)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that uploads are deleted in that case too
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))  # the terminal was closed
    if opens:
        threading.Thread(target=_open_once_served, args=(address, host, port), daemon=True).start()
    with suppress(KeyboardInterrupt):
        serve(app, host, port)


def _open_once_served(address: str, host: str, port: int) -> None:
    while True:
        try:
            socket.create_connection((host, port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            break
    webbrowser.open(address)


def _by_name(models: list[str]) -> dict[str, Path | None]:
    """Names for the page: the file names, or the whole paths where two are the same."""
    if not models:
        return {"bundled": None}
    paths = [Path(model) for model in dict.fromkeys(models)]
    names = [path.absolute().name for path in paths]  # that of `.` too
    return {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}


def run() -> None:
    """Entry point of the command."""
    run_command(main)


if __name__ == "__main__":
    run()
