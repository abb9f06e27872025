"""``catdog --version``: versions and devices, without importing what is named."""

from __future__ import annotations

import platform

from catdog import __version__
from catdog.cluster import machine
from catdog.console import plural


def version_lines() -> list[str]:
    """The program first, so that a script can read its version from the first line."""
    packages = [f"{name} {machine.installed(name) or 'missing'}" for name in machine.NAMED_PACKAGES]
    sets = " ".join(machine.instruction_sets()) or "instruction sets not known"
    cores = plural(machine.cores(), "core")
    gpus = [f"GPU: {gpu}" for gpu in machine.gpus()] or ["GPU: none that nvidia-smi knows"]
    return [
        f"catdog {__version__}",
        f"python {platform.python_version()}",
        *packages,
        f"CPU: {machine.cpu_name()}, {cores}, {sets}",
        *gpus,
    ]
