"""Serves the source that is mounted, and starts anew with each change of it; for the development target only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from titanic_api.config import Settings
from titanic_api.serve import Server, prepare_metrics

# What is read at the start besides the modules that gunicorn watches by itself.
WATCHED = ("*.html", "*.css", "*.js", "*.csv", "*.sql")


class Reloading(Server):
    """The server as it is deployed, but watching its files."""

    def load_config(self) -> None:
        """The deployed settings, one worker, and the files to watch."""
        super().load_config()
        source = Path(__file__).resolve().parent.parent / "src"
        self.cfg.set("workers", 1)
        self.cfg.set("reload", True)
        self.cfg.set("reload_extra_files", [str(path) for kind in WATCHED for path in source.rglob(kind)])


def main() -> int:
    """Serve until SIGTERM."""
    settings = Settings.from_environment(os.environ)
    prepare_metrics(settings.metrics_directory)
    Reloading(settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
