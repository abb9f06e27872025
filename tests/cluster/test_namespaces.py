"""Two hosts, each a network namespace with an address, a link and a ``ray start`` of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

#: The smallest job there is; photos of one size that the second test finds prepared.
SMALL = [
    "--models=base_cnn",
    "--trials=0",
    "--image-size=96",
    "--set=data.drawings=100",
    "--set=compute.reproducible=false",
    "--set=compute.cpus_per_worker=1",
    "--workers=2",
]

#: Go on with one worker where there is no other.
FEWER = "--set=compute.min_workers=1"

#: From the cut of the link to the end of the job, seconds. Ray misses the node after some 5 s as
#: the fixture sets it (62 s by default), TensorFlow its peer after 10 to 20 s; then the group's
#: new start may once wait in vain for the node (20 s here, 60 s by default), starts on what is left
#: in some 15 s, and trains, predicts and reports in 30 s: 98 s were seen on two busy cores.
CUT_LIMIT_S = 150


def sh(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


@dataclass
class Hosts:
    """Two namespaces joined by a cable; everything started in them ends with them."""

    names: tuple[str, str]
    folder: Path
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2")
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def join(self) -> None:
        cables = [f"v{name}" for name in self.names]
        for name in self.names:
            sh("ip", "netns", "add", name)
        sh("ip", "link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, cable, address in zip(self.names, cables, self.addresses, strict=True):
            sh("ip", "link", "set", cable, "netns", name)
            sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", cable)
            sh("ip", "-n", name, "link", "set", cable, "up")
            sh("ip", "-n", name, "link", "set", "lo", "up")

    def cut(self) -> None:
        sh("ip", "-n", self.names[1], "link", "set", f"v{self.names[1]}", "down")

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_worker_niceness": "0",
            # Read by the head: three misses in a row of one second each make a node dead.
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            # A group that was to start on the lost host tries without it after so long.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
        }

    def start(self, host: int, *command: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], *command],
            text=True,
            start_new_session=True,
            **options,
        )
        self.started.append(process)
        return process

    def start_ray(self, host: int) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        where = "--head --port=6379 --include-dashboard=false" if host == 0 else (
            f"--address={self.addresses[0]}:6379"
        )  # fmt: skip
        with (self.folder / f"ray{host}.log").open("w") as log:
            self.start(
                host,
                *(ray, "start", "--block", *where.split(), "--num-cpus=1"),
                *(f"--node-ip-address={self.addresses[host]}", "--object-store-memory=150000000"),
                *(f"--temp-dir={self.folder}/{host}", "--disable-usage-stats"),
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for_ray(self) -> None:
        look = "import ray; ray.init(log_to_driver=False); print(len(ray.nodes()))"
        environment = self.environment | {"RAY_ADDRESS": f"{self.addresses[0]}:6379"}
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            done = subprocess.run(
                ["ip", "netns", "exec", self.names[0], sys.executable, "-c", look],
                capture_output=True,
                text=True,
                env=environment,
                timeout=60,
                check=False,
            )
            if done.stdout.strip().endswith("2"):
                return
            time.sleep(1)
        pytest.fail("\n".join(log.read_text() for log in self.folder.glob("ray*.log")))

    def train(self, project: Path, *arguments: str) -> subprocess.Popen[str]:
        """``jobs/train.py`` on the first host, its standard output and error in one pipe."""
        return self.start(
            0,
            *(sys.executable, str(project / "jobs" / "train.py"), *SMALL, *arguments),
            env=self.environment | {"RAY_ADDRESS": f"{self.addresses[0]}:6379"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def end(self) -> None:
        """Everything in both namespaces at once: Ray's own end waits 30 s for a host cut off."""
        for name in self.names:
            for pid in self._processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait(timeout=15)
            if process.stdout is not None:
                process.stdout.close()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    @staticmethod
    def _processes(name: str) -> list[int]:
        command = ["ip", "netns", "pids", name]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """A cluster of two hosts with one CPU each; skipped where there are no namespaces."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip (iproute2), for network namespaces")
    # Ray's sockets lie in this folder and their paths may have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    number = os.getpid() % 10000
    two = Hosts((f"a{number}", f"b{number}"), folder)
    try:
        try:
            two.join()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        two.start_ray(0)
        two.start_ray(1)
        two.wait_for_ray()
        yield two
    finally:
        two.end()
        shutil.rmtree(folder, ignore_errors=True)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


def test_one_job_trains_on_two_hosts(hosts: Hosts, project: Path) -> None:
    storage = hosts.folder / "runs"
    process = hosts.train(project, f"--storage={storage}", "--name=whole", "--epochs=1")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    (training,) = events(storage / "whole", "training")
    assert sorted(training["nodes"]) == list(hosts.addresses), "a worker on each host"
    assert output.strip().splitlines()[-1] == str(storage / "whole" / "report.html")


def test_a_cut_link_costs_part_of_an_epoch_and_is_named(hosts: Hosts, project: Path) -> None:
    storage = hosts.folder / "runs"
    process = hosts.train(project, f"--storage={storage}", "--name=cut", "--epochs=6", FEWER)
    assert process.stdout is not None
    seen = list(_until(process, "base_cnn epoch 2/6  loss"))
    hosts.cut()
    began = time.monotonic()
    output, _ = process.communicate(timeout=CUT_LIMIT_S)
    seen += output.splitlines()
    whole = "\n".join(seen)
    assert process.returncode == 0, whole
    print(f"from the cut to the end: {time.monotonic() - began:.0f} s")
    lost = [line for line in seen if line.startswith(f"note: node {hosts.addresses[1]} was lost")]
    assert len(lost) == 1, whole
    assert "Traceback" not in whole
    before, after = (event["nodes"] for event in events(storage / "cut", "training"))
    assert sorted(before) == list(hosts.addresses)
    assert after == [hosts.addresses[0]], "it went on on the host that was left"
    epochs = [event["epoch"] for event in events(storage / "cut", "epoch")]
    assert epochs == [1, 2, 3, 4, 5, 6], "an epoch was trained twice"
    model = json.loads((storage / "cut" / "models/base_cnn/model.json").read_text())
    assert model["train"]["restarts"] == 1
    assert (storage / "cut" / "report.html").is_file()


def _until(process: subprocess.Popen[str], start: str) -> Iterator[str]:
    """The lines of ``process`` up to the first that begins with ``start``."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")
        if line.startswith(start):
            return
    pytest.fail(f"ended with {process.wait(timeout=30)} before {start!r}")
