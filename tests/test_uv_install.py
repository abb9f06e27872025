"""pip's configuration, handed over to uv."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

LISTING = """\
:env:.default-timeout='180'
:env:.find-links='{links} /no/such/folder'
global.cert='/etc/ssl/own.crt'
global.extra-index-url='file:///no/such/folder https://user:key@mirror.test/more'
global.index-url='https://mirror.test/a'
install.index-url='https://mirror.test/b'
install.trusted-host='mirror.test\\nother.test'
list.format='columns'
"""


@pytest.fixture(scope="module")
def tool(project: Path) -> dict[str, Any]:
    return runpy.run_path(str(project / "tools" / "uv_install.py"))


def test_settings_of_pip_reach_uv_and_folders_that_are_missing_do_not(
    tool: dict[str, Any], tmp_path: Path
) -> None:
    settings = tool["settings_of"](LISTING.format(links=tmp_path))
    assert "format" not in settings, "of another command"
    arguments, environment = tool["translated"](settings)
    assert environment == {
        "UV_DEFAULT_INDEX": "https://mirror.test/b",
        "UV_INDEX": "https://user:key@mirror.test/more",
        "SSL_CERT_FILE": "/etc/ssl/own.crt",
        "UV_HTTP_TIMEOUT": "180",
    }
    assert arguments == [
        *("--index-strategy", "unsafe-best-match"),
        *("--allow-insecure-host", "mirror.test", "--allow-insecure-host", "other.test"),
        *("-f", str(tmp_path)),
    ]


@pytest.mark.parametrize("line", ["global.only-binary=':all:'", "install.user='true'"])
def test_a_setting_that_uv_has_no_word_for_leaves_it_to_pip(
    tool: dict[str, Any], line: str
) -> None:
    assert tool["translated"](tool["settings_of"](line)) is None
    assert tool["translated"](tool["settings_of"]("global.retries='9'")) is not None
