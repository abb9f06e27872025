"""A store that speaks S3 on loopback, in a process of its own, behind a proxy that can be cut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs

from catdog.storage import Location

ACCESS_KEY, SECRET = "loopback", "secret-word"
#: The environment in which a command may use the store.
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
BUCKET = "bucket"


class Proxy:
    """Hands connections on to a port; while it is cut, nobody accepts any."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._listen()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                self._open.add(client)
                upstream = socket.create_connection(("127.0.0.1", self.target))
                self._open.add(upstream)
                for source, sink in ((client, upstream), (upstream, client)):
                    threading.Thread(target=self._hand_on, args=(source, sink), daemon=True).start()

    def _hand_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)

    def cut(self) -> None:
        # Closing alone would leave the accepting thread in its call, and the port open.
        for end in (self._server, *tuple(self._open)):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def heal(self) -> None:
        """Accept connections again, where it is cut."""
        if self._server.fileno() != -1:
            return
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._listen()


@dataclass
class S3:
    """A running store with one bucket."""

    process: subprocess.Popen[bytes]
    proxy: Proxy
    _timers: list[threading.Timer] = field(default_factory=list)

    def __post_init__(self) -> None:
        #: Past the proxy, so never away but while the server hangs.
        self.filesystem = pafs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET,
            endpoint_override=f"127.0.0.1:{self.proxy.target}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def uri(self, path: str, bucket: str = BUCKET, *, keys: bool = False) -> str:
        """For those that have :data:`KEYS` in their environment, or with ``keys`` for all."""
        user = f"{ACCESS_KEY}:{SECRET}@" if keys else ""
        query = f"endpoint_override=http://127.0.0.1:{self.proxy.port}&scheme=http&region=us-east-1"
        return f"s3://{user}{bucket}/{path}?{query}"

    def location(self, path: str) -> Location:
        """With the keys in its URI, so that Ray's workers have them too.

        Its endpoint goes without ``http://``: users write it either way.
        """
        query = f"endpoint_override=127.0.0.1:{self.proxy.port}&scheme=http&region=us-east-1"
        return Location.of(f"s3://{ACCESS_KEY}:{SECRET}@{BUCKET}/{path}?{query}")

    def read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(f"{BUCKET}/{path}") as stream:
            return bytes(stream.read())

    def files(self, path: str) -> list[str]:
        """Paths of all files below ``path``, relative to the bucket."""
        selector = pafs.FileSelector(f"{BUCKET}/{path}", recursive=True, allow_not_found=True)
        found = [info.path for info in self.filesystem.get_file_info(selector) if info.is_file]
        return sorted(name.removeprefix(f"{BUCKET}/") for name in found)

    def put(self, path: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(f"{BUCKET}/{path}") as stream:
            stream.write(content)

    def put_folder(self, folder: Path, path: str) -> None:
        files = [file for file in folder.rglob("*") if file.is_file()]
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(
                    lambda file: self.put(f"{path}/{file.relative_to(folder)}", file.read_bytes()),
                    files,
                )
            )

    def refuse(self, seconds: float) -> None:
        """Refuse connections, and drop those that stand, for so long; returns at once."""
        self.proxy.cut()
        self._later(seconds, self.proxy.heal)

    def hang(self, seconds: float) -> None:
        """Answer nothing for so long; connections stand. Returns at once."""
        self.process.send_signal(signal.SIGSTOP)
        self._later(seconds, lambda: self.process.send_signal(signal.SIGCONT))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        self._timers.append(timer)
        timer.start()

    def settle(self) -> None:
        """Wait for the end of all outages."""
        for timer in self._timers:
            timer.join()
        self._timers.clear()


@contextlib.contextmanager
def s3_server(**environment: str) -> Iterator[S3]:
    """A moto server for the time of the block; ``environment`` is added to its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Path(sys.executable).with_name("moto_server")
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
    )
    store = S3(process, Proxy(port))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "moto's server did not start"
                assert process.poll() is None, "moto's server ended"
                time.sleep(0.1)
        if "INITIAL_NO_AUTH_ACTION_COUNT" not in environment:
            store.filesystem.create_dir(BUCKET)
        yield store
    finally:
        store.settle()
        store.proxy.cut()
        process.terminate()
        process.wait(timeout=20)
