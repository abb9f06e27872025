"""What the operating system says about this machine."""

from __future__ import annotations

import os


def cores() -> int:
    """CPU cores that this process may use; where the system keeps no such list (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
