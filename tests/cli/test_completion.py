"""``catdog completion``: the shell itself is asked what it would complete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_main import catdog

ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_catdog
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = catdog("completion", "bash")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n", "nothing slow is imported"
    file = tmp_path_factory.mktemp("completion") / "catdog.bash"
    file.write_text(done.stdout)
    return file


@pytest.mark.parametrize(
    "words, offered",
    [
        (["ru"], {"runs"}),
        (["runs", ""], {"list", "status", "prune"}),
        (["train", "--ep"], {"--epochs"}),
        (["train", "--models", "res"], {"resnet50v2"}),
        (["export", "RUN", "--formats", "on"], {"onnx"}),
        (["benchmark", "inge"], {"ingest"}),
        (["completion", "z"], {"zsh"}),
        (["--ver"], {"--version"}),
    ],
)
def test_bash_completes_commands_flags_and_names(
    words: list[str], offered: set[str], script: Path
) -> None:
    command = ["bash", "-c", ASK, "bash", str(script), "catdog", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert set(done.stdout.split()) == offered, done.stderr


def test_bash_completes_a_folder_of_photos(script: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    command = ["bash", "-c", ASK, "bash", str(script), "catdog", "train", "--data", "pho"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, cwd=tmp_path
    )
    assert "photos" in done.stdout.rstrip("/\n"), done.stderr


def test_zsh_gets_a_script_of_its_own(tmp_path: Path) -> None:
    done = catdog("completion", "zsh")
    assert done.returncode == 0
    assert done.stdout.startswith("#compdef catdog\n")
    assert "--epochs" in done.stdout
    if zsh := shutil.which("zsh"):
        file = tmp_path / "_catdog"
        file.write_text(done.stdout)
        subprocess.run([zsh, "-n", str(file)], check=True, timeout=30)


def test_another_shell_is_refused_in_one_line() -> None:
    done = catdog("completion", "fish")
    assert done.returncode == 2
    assert "choose from bash, zsh" in done.stderr.splitlines()[0]
