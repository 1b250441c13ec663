"""`medsegdiff serve`."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medsegdiff.app.options import Parser, add_weights
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import private_folder
from medsegdiff.base.screen import note, tell
from medsegdiff.checkpoints.shipped import DEFAULT
from medsegdiff.config.choices import Precision

SUMMARY = "segment images in the browser, by a web page on this machine"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def configure(parser: Parser) -> None:
    """Add the command's options."""
    text = "a run's folder, a checkpoint, a .safetensors file, or the name of a network of the package"
    parser.option("--model-path", DEFAULT, text)
    parser.option("--host", "127.0.0.1", "address to listen on; 0.0.0.0: all")
    parser.option("--port", 7860, "port to listen on")
    parser.option("--auth", "", "ask for this login", metavar="USER:PASSWORD")
    parser.option("--max-mb", 32, "largest upload in megabytes")
    parser.option("--max-pixels", 25, "largest image in millions of pixels, all slices together")
    parser.option("--max-waiting", 16, "images that may wait in the queue; more are refused")
    add_weights(parser)
    parser.option("--precision", "fp32", "number format, as for sample", Precision)
    parser.put_first("--model-path", "--host", "--port", "--auth")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    user, colon, password = options.auth.partition(":")
    if options.auth and not (user and colon and password):
        raise InputError("--auth: must be USER:PASSWORD")
    check_bounds("--port", options.port, 1, 65535)
    for name, most in (("max_mb", 4096), ("max_pixels", 1000), ("max_waiting", 10000)):
        check_bounds(f"--{name.replace('_', '-')}", getattr(options, name), 1, most)
    if find_spec("gradio") is None:
        raise InputError("serve: needs gradio; pip install 'medsegdiff-jittor[app]'")
    if options.host not in _LOOPBACK and not options.auth:
        note("note: whoever reaches this machine can use the page; give --auth USER:PASSWORD")
    # It asks no other machine; gradio would ask a proxy for the page itself, to see whether it is there.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    with private_folder("medsegdiff-serve-") as folder:
        # Read when gradio is imported.
        os.environ.update(GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
        os.environ.update(GRADIO_ANALYTICS_MAX_EVENTS="100")  # what it remembers of requests
        serve(options, (user, password) if options.auth else None, folder)
    return 0


def serve(options: Any, auth: Any, folder: Path) -> None:
    """Serve until Ctrl-C; the network stays in this thread, and uploads are in `folder` while they are needed."""
    check_address(options.host, options.port)  # before anything takes long

    from medsegdiff.api import load
    from medsegdiff.web.incoming import Bounds
    from medsegdiff.web.page import build, launching
    from medsegdiff.web.worker import Worker

    worker = Worker(load(options.model_path, weights=options.weights, precision=options.precision))
    bounds = Bounds(options.max_mb, options.max_pixels, options.max_waiting)
    page, host = build(worker, bounds, folder), f"[{options.host}]" if ":" in options.host else options.host
    try:
        page.launch(server_name=host, server_port=options.port, auth=auth, **launching(bounds))
    except OSError:  # taken meanwhile
        check_address(options.host, options.port)
        raise
    tell(f"http://{host}:{options.port} until Ctrl-C", host=options.host, port=options.port)
    try:
        worker.run()
    finally:
        page.close(verbose=False)


def check_address(host: str, port: int) -> None:
    """Refuse an address that is not this machine's, or that another program has.

    Raises:
        InputError: nothing can listen there.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or "no address").partition(" (")[0]
        raise InputError(f"--host {host}, --port {port}: cannot listen there ({reason}); give another") from None
