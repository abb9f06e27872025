"""A real MLflow server on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Server:
    """A real MLflow server over SQLite, which can be taken away and come back."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = [f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db"]
        store += [f"--artifacts-destination={self.folder}/artifacts"]
        where = ["--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *where],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        pytest.fail((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=20)
            self.process = None

    def only_run(self, experiment: str) -> tuple[Any, Any]:
        """A client and the one MLflow run that there is of ``experiment``."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        number = client.get_experiment_by_name(experiment).experiment_id
        (run,) = client.search_runs([number])
        return client, run
