"""Serve the page on the loopback address of this machine, without requests to others, and leave no file behind."""

import os
import shutil
import socket
import tempfile
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust.app.attack_choices import FIRST, RANGES, attack_choices
from medrobust.app.compare import compare
from medrobust.core.disk import remove_killed_writes
from medrobust.core.ending import early_end
from medrobust.core.errors import UserError
from medrobust.core.runtime import device as chosen_device
from medrobust.core.runtime import progress, say
from medrobust.data.inputs import InputImage
from medrobust.inference.loaded import LoadedModel, open_model

HOST = "127.0.0.1"
#: Largest file that is accepted.
LARGEST = "1gb"
#: With this header the browser itself refuses requests of the page to other addresses.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"
#: Grey of small type, light and dark, with enough contrast to read.
SOFT = ("#5b6670", "#9aa5af")


def run_app(folders: Sequence[Path], port: int, device: str | None = None, *, open_browser: bool = False) -> None:
    """Load the models and serve their page until a signal ends it.

    Args:
        folders: of published models; [] = all in `models`.
        port: of the loopback address; 0 = any free one.
        device: as in `runtime.device`.
        open_browser: open the page in the user's browser.

    Raises:
        UserError: gradio is not installed, the port is in use, or a folder holds no model that the page can show.
    """
    if find_spec("gradio") is None:
        raise UserError("medrobust app", "gradio is not installed", "Run: pip install medrobust[app]")
    with early_end(), free_port(port) as listener, upload_folder() as folder:
        models = load_models(folders or published_models(Path("models")), chosen_device(device))
        server = _server(models, folder)
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        say(f"medrobust app: {address} (Ctrl-C ends it)")
        if open_browser:
            webbrowser.open(address)
        server.run(sockets=[listener])


def published_models(folder: Path) -> list[Path]:
    """The published models below a folder.

    Raises:
        UserError: there is none.
    """
    found = sorted(path.parent for path in folder.glob("*/*/use.json"))
    if not found:
        raise UserError(str(folder), "holds no published model", "Name the folder of a model, or run `dvc repro`")
    return found


def load_models(folders: Sequence[Path], device: torch.device) -> dict[str, LoadedModel]:
    """The models by the names of their folders; each has answered once, so that the first click is not slower.

    Raises:
        UserError: a folder is damaged or missing, or does not say how files become the model's input.
    """
    models = {}
    for folder in progress(folders, "loading models"):
        model = models[str(folder)] = open_model(folder, device=device)
        size, channels = model.described().input.image_size, model.described().input.channels
        pixels = np.zeros((size, size) if channels == 1 else (size, size, channels), np.uint8)
        compare(model, InputImage(pixels, ""), attack_choices()[FIRST], RANGES["Linf"][0])
    return models


@contextmanager
def free_port(port: int) -> Iterator[socket.socket]:
    """A socket that listens on a port of the loopback address; 0 = any free port.

    Raises:
        UserError: the port is in use, or this user may not use it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError as error:
            found = f"cannot be used: {os.strerror(error.errno or 0)}"
            remedy = "Use another port (`--port 0` is any free one), or end the program that uses it"
            raise UserError(f"port {port}", found, remedy) from None
        yield listener


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for files that are being uploaded, which only this user can read; deleted at the end.

    Folders that killed processes have left are deleted at the start.
    """
    remove_killed_writes(Path(tempfile.gettempdir()).glob(".medrobust-app-*.tmp"))
    folder = Path(tempfile.mkdtemp(prefix=".medrobust-app-", suffix=f".{os.getpid()}.tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _server(models: Mapping[str, LoadedModel], uploads: Path) -> Any:
    """The server of the page for these models; Gradio keeps uploaded files in `uploads`."""
    # Gradio reads these when it is imported, and when the parts of a page are made.
    os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from medrobust.app.page import build_page

    app = FastAPI(openapi_url=None)
    soft = dict.fromkeys(("body_text_color_subdued", "block_info_text_color"), SOFT[0])
    theme = gr.themes.Default(font="sans-serif", font_mono="monospace")  # other fonts would be fetched
    gr.mount_gradio_app(
        app, build_page(models), "/", server_name=HOST, footer_links=[], max_file_size=LARGEST,
        run_history=False,  # it keeps answers in the browser
        ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, show_error=False,
        theme=theme.set(**soft, **{f"{name}_dark": SOFT[1] for name in soft}),
        css_paths=[Path(__file__).with_name("app.css")],
    )  # fmt: skip
    # Pages of other sites that point a name of theirs to this address (DNS rebinding) get no answer.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.add_middleware(WithPolicy)
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))


class WithPolicy:
    """Adds `POLICY` to every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request (ASGI)."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-security-policy", POLICY.encode()))
            await send(message)

        await self.app(scope, receive, send_with_policy)
