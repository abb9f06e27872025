"""``catdog --version``: what computes here."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from catdog import __version__
from catdog.cli.version import version_lines
from catdog.cluster import machine
from tests.cli.test_main import catdog

EPYC = "model name\t: AMD EPYC 7B13\nflags\t\t: fpu sse4_1 avx avx2 fma\n"


def test_it_names_versions_and_devices_without_importing_them() -> None:
    done = catdog("--version")
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"catdog {__version__}", f"python {platform.python_version()}"]
    for package in ("ray", "tensorflow", "keras", "numpy", "pyarrow"):
        assert f"{package} {version(package)}" in lines
    assert any(line.startswith("CPU: ") and " core" in line for line in lines)
    assert any(line.startswith("GPU: ") for line in lines)


def test_the_cpu_is_named_with_its_instruction_sets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(EPYC)
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert "CPU: AMD EPYC 7B13, 2 cores, sse4_1 avx avx2 fma" in version_lines()
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.instruction_sets() == ()


def test_gpus_are_those_that_nvidias_tool_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 550.54'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "GPU: NVIDIA L4, 23034 MiB, driver 550.54" in version_lines()
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert machine.gpus() == ()
