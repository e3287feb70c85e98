"""Runs the service under gunicorn, with the settings of the environment."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

import titanic_api.shared_counters  # noqa: F401 (which the workers share: made before they are)
from titanic_api.config import ConfigurationError, Settings

MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100
MAX_REQUEST_LINE_BYTES = 8190
# How long a connection may take to bring its one request, where none is kept. Who is in front may have to wait for a
# processor once it has connected, and takes a connection that is closed without an answer for a broken server.
ARRIVAL_SECONDS = 10
# The heartbeats are file times, which must not wait for a slow disk.
MEMORY = "/dev/shm"  # noqa: S108 (gunicorn unlinks its file at once)


class Server(BaseApplication):
    """gunicorn with this service and nothing read from the command line or from files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Translate our settings into gunicorn's."""
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Make the application, in each worker, after gevent has patched the standard library."""
        from titanic_api.app import create_app
        from titanic_api.observability import log_to_stderr

        log_to_stderr(self._settings.log_level)
        return create_app(self._settings)


def options(settings: Settings) -> dict[str, Any]:
    """The settings in gunicorn's names."""
    return {
        "bind": settings.bind,
        "workers": settings.workers,
        "worker_class": "titanic_api.gunicorn_worker." + ("Worker" if settings.keepalive_seconds else "ClosingWorker"),
        "worker_tmp_dir": MEMORY if os.access(MEMORY, os.W_OK) else None,
        "graceful_timeout": settings.graceful_timeout_seconds,
        "keepalive": settings.keepalive_seconds or ARRIVAL_SECONDS,
        "limit_request_line": MAX_REQUEST_LINE_BYTES,
        "limit_request_fields": MAX_HEADERS,
        "limit_request_field_size": MAX_HEADER_BYTES,
        "control_socket_disable": True,
        "accesslog": None,
        "errorlog": "-",
        "logger_class": "titanic_api.logs.ServerLogger",
        # A socket is for the account that serves and for root, and for whom _open_socket_to_proxy finds.
        "umask": 0o177,
        "loglevel": settings.log_level,
        "proc_name": "titanic-api",
        "post_fork": _restore_sigterm,
        "when_ready": _open_socket_to_proxy,
        "child_exit": _remove_gauges,
    }


def _restore_sigterm(_server: Any, _worker: Any) -> None:
    """Let SIGTERM end a worker that is not up yet: the handler of its master, which it has until then, forgets it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _open_socket_to_proxy(server: Any) -> None:
    """Open a socket to all who come to it, where its directory lets in nobody else but another group than ours."""
    for listener in server.LISTENERS:
        name = listener.getsockname()
        if isinstance(name, str):
            place = Path(name).parent.stat()
            if place.st_gid != os.getegid() and not place.st_mode & stat.S_IRWXO:
                Path(name).chmod(0o666)


def _remove_gauges(server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    try:
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
    except OSError as error:  # which would end the server
        server.log.warning("a gauge of a worker that has ended stays: %s", error)


def prepare_metrics(directory: Path | None) -> None:
    """Give the workers a directory without the counts of an earlier life. Raises ConfigurationError."""
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="titanic-metrics-"))
        master = os.getpid()
        atexit.register(lambda: shutil.rmtree(directory, ignore_errors=True) if os.getpid() == master else None)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in directory.glob("*.db"):
            file.unlink()
    except OSError as error:
        raise ConfigurationError(f"TITANIC_METRICS_DIRECTORY {directory}: {error.strerror}") from None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # Not before: prometheus_client looks at the environment when it is imported.
    from titanic_api import metrics_files

    metrics_files.reserve()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM; the calling process becomes gunicorn's master. Raises ConfigurationError."""
    settings.write_tokens()  # a bad file is better found before the workers are
    settings.password()
    prepare_metrics(settings.metrics_directory)
    Server(settings).run()
