"""A `python` for clones that starts a stage in a fork of a process which has imported the large libraries.

Most stages of the smoke preset compute for a second and import for three. The fork has nothing of medrobust, whose
modules come from the clone's own source. The workflows run the pipeline without this.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

#: Loaded before any stage runs.
LIBRARIES = (
    "torch", "torchvision", "timm", "safetensors.torch", "pandas", "pyarrow.parquet", "scipy.stats",
    "scipy.optimize", "sklearn.mixture", "sklearn.linear_model", "matplotlib.pyplot", "pydantic", "ruamel.yaml",
    "optuna", "jinja2",
)  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Runs a script by the server. Any other command, and a stage with more threads, is for the real Python.
CLIENT = """#!{python} -IS
import json, os, socket, sys
if not "".join(sys.argv[1:2]).endswith(".py") or os.environ.get("MEDROBUST_THREADS", "1") != "1":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    request = {{"folder": os.getcwd(), "argv": sys.argv[1:], "environment": dict(os.environ)}}
    server.sendall(json.dumps({{**request, "client": os.getpid()}}).encode())
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


@cache
def warm_python() -> str:
    """The folder of the `python` whose server ends with this process; the server starts at the first call."""
    folder = tempfile.TemporaryDirectory(prefix="warm")
    address, client = Path(folder.name, "socket"), Path(folder.name, "bin", "python")
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    environment.pop("PYTHONPATH", None)
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return str(client.parent)


def serve(address: str) -> None:
    """Fork a process per request, until the process that started the server ends."""
    import importlib
    import selectors
    import signal

    sys.path.pop(0)  # the folder of this file
    for name in LIBRARIES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX) as listening, selectors.DefaultSelector() as events:
        listening.bind(address)
        listening.listen()
        events.register(listening, selectors.EVENT_READ)
        events.register(sys.stdin, selectors.EVENT_READ)
        os.write(1, b"ready\n")
        while all(key.fileobj is listening for key, _ in events.select()):
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Run the script of a request and end this process."""
    import runpy
    import traceback

    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as file:
        request = json.load(file)
    for number, opened in enumerate(files):
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["environment"])
    # The stage ends with the client, which DVC may kill.
    known = os.environ.get("MEDROBUST_PARENTS")
    os.environ["MEDROBUST_PARENTS"] = f"{known}:{request['client']}" if known else str(request["client"])
    os.chdir(request["folder"])
    sys.argv = request["argv"]
    sources = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    stages = Path(sys.argv[0]).resolve().parent
    # Its own source first: otherwise a stage replaces its process (`runtime.own_sources`) and never answers.
    sys.path[:0] = [str(stages), str(stages.parent / "src"), *filter(None, sources)]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # as Python itself does
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code]))
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
