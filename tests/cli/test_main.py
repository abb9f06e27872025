"""The commands by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from catdog.cli.main import COMMANDS, run

SLOW_TO_IMPORT = ("keras", "optuna", "ray", "tensorflow")


def catdog(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``catdog ARGUMENTS``; the last line on standard error lists slow imports."""
    script = (
        "import atexit, sys\n"
        f"slow = {SLOW_TO_IMPORT}\n"
        "atexit.register(lambda: print(sorted({*slow} & {*sys.modules}), file=sys.stderr))\n"
        "from catdog.cli.main import main\n"
        "sys.exit(main())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_answers_without_slow_imports(command: str) -> None:
    done = catdog(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: catdog {command} ")
    assert done.stderr == "[]\n"


def test_help_lists_every_command() -> None:
    done = catdog("--help")
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    "typed, said", [("trian", "did you mean train?"), ("bake", "there are train, tune")]
)
def test_an_unknown_command_is_answered_with_the_nearest(typed: str, said: str) -> None:
    done = catdog(typed)
    assert done.returncode == 2
    first, imports = done.stderr.splitlines()
    assert first.startswith(f"error: there is no command '{typed}'; {said}")
    assert imports == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_one_line_and_exit_code_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, ["--no-such-flag"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["train", "tune"])
def test_help_settings_lists_every_setting_without_slow_imports(command: str) -> None:
    done = catdog(command, "--help-settings")
    assert done.returncode == 0, done.stderr
    assert "  data.image_size  (integer, 32 to 1024)" in done.stdout
    assert done.stderr == "[]\n"
