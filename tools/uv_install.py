"""``pip install`` with the same arguments, done by uv in a fraction of the time, or not at all.

    .venv/bin/python tools/uv_install.py --constraint constraints.txt --editable .

Installs into the environment of the Python that runs it. uv does not read pip's configuration, so
its settings are handed over. Exit code 0: installed. Anything else: nothing was, and pip has to do
it, because uv is missing or failed, or a setting of pip has no counterpart.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

#: pip's settings that change neither what is installed nor where from.
WITHOUT_EFFECT = {
    *("break-system-packages", "cache-dir", "disable-pip-version-check", "log", "no-color"),
    *("no-input", "no-python-version-warning", "no-warn-script-location", "prefer-binary"),
    *("progress-bar", "quiet", "retries", "require-virtualenv", "root-user-action", "verbose"),
}
#: Where pip takes them from, the strongest last.
SECTIONS = ("global", "install", ":env:")


def settings_of(listing: str) -> dict[str, str]:
    """Settings for installing by name, from the output of ``pip config list``."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, mark, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if mark and section in found:
            found[section][key] = str(ast.literal_eval(value))
    return {key: value for section in SECTIONS for key, value in found[section].items()}


def translated(settings: Mapping[str, str]) -> tuple[list[str], dict[str, str]] | None:
    """(arguments, environment) of uv for pip's settings; ``None`` where one has no counterpart."""
    # pip takes the best version of all indexes, uv by itself that of the first that has any.
    arguments, environment = ["--index-strategy", "unsafe-best-match"], {}
    for key, value in settings.items():
        if key == "index-url":
            environment["UV_DEFAULT_INDEX"] = value  # not an argument, as it may hold a password
        elif key == "extra-index-url":
            environment["UV_INDEX"] = " ".join(_there(value.split()))
        elif key == "find-links":
            arguments += [part for place in _there(value.split()) for part in ("-f", place)]
        elif key == "trusted-host":
            hosts = value.split()
            arguments += [part for host in hosts for part in ("--allow-insecure-host", host)]
        elif key == "constraint":
            arguments += [part for file in value.split() for part in ("--constraint", file)]
        elif key == "cert":
            environment["SSL_CERT_FILE"] = value
        elif key == "client-cert":
            environment["SSL_CLIENT_CERT"] = value
        elif key == "proxy":
            environment |= {"HTTP_PROXY": value, "HTTPS_PROXY": value}
        elif key in ("timeout", "default-timeout"):
            environment["UV_HTTP_TIMEOUT"] = value
        elif key == "no-index" and value.lower() in ("1", "true", "yes", "on"):
            arguments.append("--no-index")
        elif key not in WITHOUT_EFFECT:
            return None
    return arguments, environment


def _there(places: Iterable[str]) -> list[str]:
    """Without folders that do not exist, which pip passes over."""
    return [
        place
        for place in places
        if urlsplit(place).scheme not in ("", "file") or Path(urlsplit(place).path).exists()
    ]


def main(arguments: list[str]) -> int:
    if find_spec("uv") is None:
        return 1
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(pip, stdout=subprocess.PIPE, text=True, check=True).stdout
    handed = translated(settings_of(listing))
    if handed is None:
        return 1
    options, environment = handed
    # Compiled as pip does: else each process that imports a module compiles it by itself.
    command = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", *command, *options, *arguments],
        env=os.environ | environment,
        check=False,
    )
    if done.returncode:
        print("uv did not install; pip tries", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
