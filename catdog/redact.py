"""What is never written down: the keys that a URI may carry."""

from __future__ import annotations

import re
from typing import Any

# A secret key may hold a slash that nobody encoded; a colon before a port does not begin a secret.
USER_INFO = re.compile(
    r"(\b[a-z][a-z0-9+.-]*://)(?:[^/@\s'\"]*|[^/@\s'\":]+:(?!\d+/)[^@\s'\"]*)@", re.IGNORECASE
)
_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:key|secret|token|passw|signature|credential|sig)[^=&\s]*=)[^&\s'\"]*",
    re.IGNORECASE,
)


def without_secrets(value: Any) -> Any:
    """``value`` (JSON-like) with URIs that still name the same place and carry no key."""
    if isinstance(value, str):
        return _PARAMETER.sub(r"\1…", USER_INFO.sub(r"\1", value))
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value
