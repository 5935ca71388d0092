"""Several processes behind one port: each takes connections from the same listening sockets."""

import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from api.http import UVICORN
from api.listening import listen


def serve_many(factory: str, workers: int, host: str, port: int, **options: Any) -> None:
    """Run `module:function`, which makes the application, in `workers` processes until SIGTERM or SIGINT.

    A process that dies is started again. `options` go to `uvicorn.Config`. A port that is taken: exit 1 with a message.
    """
    try:
        sockets = listen(host, port)
    except OSError as error:
        sys.exit(f"cannot listen on {host}:{port}: {error.strerror or error}")
    config = uvicorn.Config(factory, factory=True, workers=workers, **(UVICORN | options))
    Multiprocess(config, sockets).run()


def end_with_parent() -> None:
    """Called in each of these processes: when their parent is killed, they stop as if told to."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True).start()
