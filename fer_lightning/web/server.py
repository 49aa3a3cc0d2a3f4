"""Access to the page and the camera's frames: password, limits, and what the page may request from other machines."""

import base64
import hmac
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.routing import Mount

from fer_lightning.errors import InputError
from fer_lightning.web.page import build_page
from fer_lightning.web.service import Service, Settings

LARGEST_FRAME = 4_000_000  # bytes of a camera's picture
MOST_WAITING = 32  # requests in the queue; further ones are refused
AT_ONCE = 2  # uploads that are processed at the same time
# With this policy the browser itself refuses all requests of the page to other machines.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")  # of this machine, as browsers write them
FONTS = ["system-ui", "sans-serif"]


def create_app(
    models: Mapping[str, Path | None],
    folder: Path,
    uploads: Path,
    *,
    auth: str | None = None,
    max_upload_bytes: int = 500_000_000,
) -> FastAPI:
    """Build the page as an application that a server can run.

    Args:
        models: Name on the page -> model; None uses the bundled model.
        folder: Folder for the results; the caller deletes it.
        uploads: Folder that Gradio was given for uploads; the caller deletes it too.
        auth: NAME:PASSWORD required for access; None allows everyone on this machine.
        max_upload_bytes: Largest file accepted.
    """
    service = Service(models, folder, uploads)
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def door(request: Request, enter: Callable[[Request], Awaitable[Response]]) -> Response:
        if auth is not None and not _is_allowed(request.headers.get("authorization"), auth):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="fer-app"'})
        if (why := _why_refused(request, has_password=auth is not None)) is not None:
            return Response(why, status_code=403)
        response = await enter(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    @app.post("/frame")
    async def frame(
        request: Request,
        who: str,
        model: str,
        detector: Literal["haar", "mtcnn"] = "haar",
        min_face: Annotated[float, Query(ge=0.01, le=1)] = Settings.min_face,
        smooth_s: Annotated[float, Query(ge=0, le=60)] = Settings.smooth_s,
    ) -> dict:
        jpeg = bytearray()
        async for chunk in request.stream():  # regardless of the length that the request claims
            jpeg += chunk
            if len(jpeg) > LARGEST_FRAME:
                raise HTTPException(413, f"a frame may have at most {LARGEST_FRAME:,} bytes")
        settings = Settings(model=model, detector=detector, min_face=min_face, smooth_s=smooth_s)
        try:
            return await run_in_threadpool(service.frame, bytes(jpeg), who, settings)
        except InputError as error:
            raise HTTPException(422, str(error)) from None

    page = build_page(service).queue(max_size=MOST_WAITING, default_concurrency_limit=AT_ONCE)
    page.has_launched = True  # before that, Gradio takes the path of any file of this machine for an upload
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]),
        max_file_size=max_upload_bytes,
        footer_links=["api"],
        show_error=True,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
    )


def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    _Server(uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)).run()


class _Server(uvicorn.Server):
    """Ends the connections that open pages keep alive, instead of waiting until their browsers are closed."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        [page] = [route.app for route in self.config.app.routes if isinstance(route, Mount)]
        page.stop_event.set()
        await super().shutdown(sockets)


def _why_refused(request: Request, *, has_password: bool) -> str | None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    # Another website can let its own name lead to this machine; its pages then count as this page's own.
    if not has_password and re.sub(r":\d+$", "", host) not in OWN_NAMES:
        return "without a password this page answers at 127.0.0.1 and localhost only: give fer-app --auth NAME:PASSWORD"
    if origin is not None and urlsplit(origin).netloc != host:
        return "this page answers no other website (a proxy must pass on the Host header)"
    if "://" in request.scope["path"]:  # of a file that Gradio would fetch
        return "this page fetches nothing from other machines"
    return None


def _is_allowed(header: str | None, auth: str) -> bool:
    expected = "Basic " + base64.b64encode(auth.encode()).decode()
    return hmac.compare_digest((header or "").encode(), expected.encode())
