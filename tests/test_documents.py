"""The documents: short enough to read, and true of the code as far as a program can tell.

Links resolve; commands, flags, settings, make targets and files that they name exist.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from catdog.cli.main import COMMANDS
from catdog.config.reference import groups
from catdog.presets import PRESETS

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])
README_WORDS = 700
#: What stands before the flags of a command of ours.
COMMAND = re.compile(r"(?:jobs/(?P<job>\w+)\.py|(?<![\w/.])(?:\.venv/bin/)?catdog (?P<name>\w+))")
FLAG = re.compile(r"(?<!\S)--[a-z][a-z-]*")
SETTING = re.compile(
    r"(?:augmentation|compute|data|fine_tune|model_image_size|scratch|sweep|tracking|weights)"
    r"(?:\.\w+)+"
)
#: Flags of other programs that are named by themselves.
OTHERS = {"--address", "--runtime-env-json", "--working-dir"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)


def tokens(document: Path) -> Iterator[Token]:
    """Blocks of a document and the pieces of their text."""
    for block in MarkdownIt("gfm-like", {"linkify": False}).parse(document.read_text()):
        yield block
        yield from block.children or ()


def codes(document: Path) -> Iterator[str]:
    """Lines of code, continued lines in one piece, and code within sentences."""
    for token in tokens(document):
        if token.type in ("fence", "code_block"):
            yield from token.content.replace("\\\n", " ").splitlines()
        elif token.type == "code_inline":
            yield token.content


@cache
def flags_of(command: str) -> frozenset[str]:
    """The flags in a command's ``--help``."""
    shown = io.StringIO()
    module = importlib.import_module(f"catdog.cli.{command}")
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        module.main(["--help"])
    return frozenset(re.findall(r"--[a-z][a-z-]*", shown.getvalue()))


@cache
def settings() -> frozenset[str]:
    """Paths of all settings and of their groups."""
    found = list(groups({name: preset() for name, preset in PRESETS.items()}))
    paths = {setting.path for group in found for setting in group.settings}
    return frozenset(paths | {group.path for group in found})


def anchors(document: Path) -> set[str]:
    """The headings of a document as a Git host names them."""
    parsed = list(tokens(document))
    titles = [
        after.content for token, after in itertools.pairwise(parsed) if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    words = len((PROJECT / "README.md").read_text().split())
    assert words <= README_WORDS, f"{words} words; move some to docs/"


@each_document
def test_every_relative_link_resolves(document: Path) -> None:
    for token in tokens(document):
        target = token.attrs.get("href") or token.attrs.get("src")
        if target is None or "://" in str(target):
            continue
        name, _, anchor = str(target).partition("#")
        file = document.parent / name if name else document
        assert file.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


@each_document
def test_every_command_and_flag_is_in_a_commands_help(document: Path) -> None:
    known = frozenset().union(*map(flags_of, COMMANDS)) | OTHERS
    for code in codes(document):
        found = COMMAND.search(code)
        if found:
            command = found["job"] or found["name"]
            assert command in COMMANDS, f"{code}: there is no {command}"
            given = {flag for flag in FLAG.findall(code[found.end() :]) if flag != "--help"}
            assert given <= flags_of(command), f"{code}: {given - flags_of(command)}"
        elif code.startswith("--") and not re.search(r"\s--\w", code):
            assert set(FLAG.findall(code)) <= known, f"{code}: no command has it"


@each_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    for code in codes(document):
        given = re.findall(r"--set[ =]([a-z][\w.]*)=", code)
        if SETTING.fullmatch(code.partition("=")[0]) and not re.search(r"\.(py|md|json)$", code):
            given.append(code.partition("=")[0])
        for path in given:
            by_model = re.sub(r"^(weights|model_image_size)\.\w+", r"\1.MODEL", path)
            assert {path, by_model} & settings(), f"{path}: no such setting"


@each_document
def test_every_make_target_and_file_of_the_code_exists(document: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for code in codes(document):
        if found := re.match(r"make ([a-z.][a-z-]*)", code):
            assert re.search(rf"^{re.escape(found[1])}:", makefile, re.MULTILINE), code
        if re.fullmatch(r"(?:catdog|tests|jobs|docs|tools)/[\w./-]+", code):
            assert (PROJECT / code).exists(), f"{code}: no such file"
