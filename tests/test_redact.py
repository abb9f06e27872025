"""Keys in URIs are taken out wherever something is written down."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from catdog import console
from catdog.config import Config
from catdog.redact import without_secrets

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"
URI = f"s3://AKIAEXAMPLE:{SECRET}@photos/cats?endpoint_override=http://127.0.0.1:5000"
PLAIN = "s3://photos/cats?endpoint_override=http://127.0.0.1:5000"


def test_a_uri_loses_its_keys_and_names_the_same_place() -> None:
    assert without_secrets(URI) == PLAIN
    assert without_secrets({"command": [f"--data {URI} --name x"]}) == {
        "command": [f"--data {PLAIN} --name x"]
    }


@pytest.mark.parametrize("name", ["access_key", "secret", "X-Amz-Signature", "sas_token", "sig"])
def test_parameters_that_are_keys_lose_their_values(name: str) -> None:
    uri = f"https://host/x?region=eu&{name}={SECRET}&scheme=http"
    assert without_secrets(uri) == f"https://host/x?region=eu&{name}=…&scheme=http"


@pytest.mark.parametrize("text", [PLAIN, "http://127.0.0.1:5000/a@b", "cat@home.jpg", "", 3, None])
def test_what_carries_no_key_stays_as_it_is(text: object) -> None:
    assert without_secrets(text) == text


def test_settings_are_written_without_keys_and_name_the_same_run() -> None:
    def of(uri: str) -> Config:
        return Config.from_tree({"storage": uri, "data": {"source": uri}}, "test")

    assert SECRET not in of(URI).to_yaml()
    assert PLAIN in of(URI).to_yaml()
    assert of(URI).identity == of(PLAIN).identity


def test_no_line_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(console.output, "_out", Console(file=shown, width=500))
    monkeypatch.setattr(console.output, "_err", Console(file=shown, width=500))
    for write in (
        console.say,
        console.stage,
        console.warn,
        console.complain,
        console.complain_more,
    ):
        write(f"reading {URI}")
    console.complain("no", [f"file {URI}"])
    assert SECRET not in shown.getvalue()
    assert shown.getvalue().count("s3://photos/cats") == 6
