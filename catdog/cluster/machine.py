"""Facts about this machine from the operating system."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Packages whose versions make a result.
NAMED_PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "numpy")
#: Instruction sets that decide which kernels compute, by Linux' names, the oldest first.
INSTRUCTION_SETS = (
    *("sse4_1", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_bf16", "asimd", "sve", "bf16"),
)
#: Any of them computes in bfloat16.
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
_CPUINFO = Path("/proc/cpuinfo")
#: What is asked of NVIDIA's tool, and how long it may take: a driver that hangs hangs it too.
_GPU_FACTS, _GPU_ANSWER_S = "name,memory.total,driver_version", 10.0


def cores() -> int:
    """CPU cores that this process may use; where the system keeps no such list (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """``AMD EPYC 7B13``; where the system does not say, the kind of machine: ``x86_64``."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """What the CPU can do, by Linux' names; empty where the system does not say."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def instruction_sets() -> tuple[str, ...]:
    """Those of :data:`INSTRUCTION_SETS` that this CPU has."""
    flags = cpu_flags()
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def _cpuinfo(key: str) -> str:
    """The first value of ``key``, empty where there is none."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def gpus() -> tuple[str, ...]:
    """NVIDIA's GPUs: name, memory and driver of each; none where its driver does not answer."""
    command = ["nvidia-smi", f"--query-gpu={_GPU_FACTS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GPU_ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    return tuple(f"{name}, {memory}, driver {driver}" for name, memory, driver in rows)


def installed(package: str) -> str | None:
    """The version of a package that is installed, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
