"""The commands as functions: settings, mistakes, models; and the documents' examples, run."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import catdog
from catdog.cli.flags import config_from, training_parser
from catdog.data import sample
from catdog.pipeline.api import Run, config_of


def test_importing_catdog_imports_nothing_slow_and_knows_its_functions() -> None:
    code = (
        "import sys, catdog\n"
        "assert {'train', 'tune', 'prepare', 'predict', 'load', 'UserError'} <= set(dir(catdog))\n"
        "assert not {'numpy', 'pandas', 'ray', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "try: catdog.train(preset='labtop')\n"
        "except catdog.UserError as error: print(error)\n"
        "assert not {'ray', 'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "there is no preset 'labtop'; did you mean laptop?" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'bake'"):
        _ = catdog.bake


@pytest.mark.parametrize(
    "settings",
    [
        {"scratch__epochs": 3, "fine_tune__augmentation__zoom": 0.3},
        {"scratch": {"epochs": 3}, "fine_tune__augmentation": {"zoom": 0.3}},
    ],
)
def test_a_setting_is_named_by_underscores_or_in_a_dict(settings: dict[str, Any]) -> None:
    config = config_of(None, "runs", settings)
    assert config.preset == "sample"
    assert config.scratch.epochs == 3
    assert config.fine_tune.augmentation.zoom == 0.3
    assert config.fine_tune.learning_rate == config_of(None, "runs", {}).fine_tune.learning_rate


@pytest.mark.parametrize(
    "settings, flags",
    [
        ({"scratch__epochs": 3}, ["--epochs", "3"]),
        ({"fine_tune__epochs": 3}, ["--fine-tune-epochs", "3"]),
        ({"data__image_size": 128}, ["--image-size", "128"]),
        ({"models": "base_cnn"}, ["--models", "base_cnn"]),
        ({"models": ["resnet50v2"], "sweep__trials": 0}, ["--models=resnet50v2", "--trials=0"]),
        ({"preset": "cluster", "seed": 3}, ["--preset", "cluster", "--seed", "3"]),
    ],
)
def test_a_call_asks_for_the_same_run_as_the_flags(
    settings: dict[str, Any], flags: list[str], tmp_path: Path
) -> None:
    parsed = training_parser().parse_args(["--storage", str(tmp_path), *flags])
    assert config_of(None, tmp_path, settings) == config_from(parsed)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"scratch__epohcs": 3}, "scratch.epohcs: there is no such setting; did you mean scratch."),
        ({"epochs": 3}, "did you mean scratch.epochs"),
        ({"models": ["resnet50"]}, "did you mean resnet50v2"),
        ({"scratch__epochs": 0}, "scratch.epochs"),
    ],
)
def test_a_mistake_is_an_exception_with_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(catdog.UserError, match=re.escape(said)) as caught:
        catdog.train(**settings)
    assert len(str(caught.value).splitlines()) == 1


def test_a_loaded_model_gives_the_answers_of_predict(finished_run: Any) -> None:
    run = Run(str(finished_run.path))
    assert run.best_model == str(finished_run.path / "models" / "base_cnn")
    table = catdog.predict(run, finished_run.photos / "dog.1.jpg")
    assert list(table.columns[:4]) == ["uri", "label", "probability", "probability_dog"]
    assert "drawings" in table.attrs["warning"]

    model, calibrate = catdog.load(run)
    rows = finished_run.dataset.rows("test")
    places = np.arange(4)
    found = calibrate(model.predict(rows.gather(places), verbose=0))[:, 0]
    photos = [Path(rows.uris[place]).name for place in places]
    said = [
        catdog.predict(run.path, finished_run.photos / name)["probability_dog"][0]
        for name in photos
    ]
    np.testing.assert_allclose(found, said, atol=1e-4)
    assert calibrate([0.0, 0.5, 1.0]).tolist() == [0.0, 0.5, 1.0]


def test_a_report_is_shown_inside_a_notebook(finished_run: Any) -> None:
    page = Run(str(finished_run.path)).show()
    shown = page._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script" not in shown, "it is within the attribute"
    assert page.html == (finished_run.path / "report.html").read_text()


def test_no_such_run_is_a_mistake() -> None:
    with pytest.raises(catdog.UserError, match="there is no /no/such/run"):
        catdog.load("/no/such/run")


def executed(source: str, folder: Path, limit_s: float) -> str:
    """What a program prints that runs in ``folder``."""
    environment = os.environ | {"PYTHONPATH": str(Path(catdog.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder, capture_output=True, text=True, check=False, timeout=limit_s, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_examples_of_the_document_run(project: Path, tmp_path: Path) -> None:
    text = (project / "docs" / "api.md").read_text()
    sample.draw(tmp_path / "photos", 64, 0, 96)
    parts = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(parts) >= 6
    printed = executed("\n".join(parts), tmp_path, 580)
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert f"{tmp_path}/runs/first" in printed


#: Runs cells as a notebook does, and prints what the last line of each shows.
CELLS = """
import ast, json, sys
space = {}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), space)
        value = last and eval(compile(ast.Expression(last.value), cell["id"], "eval"), space)
        if hasattr(value, "_repr_html_"):
            print(f"{cell['id']} shows", value._repr_html_()[:15])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_runs_from_photos_to_the_report_shown_inside(
    project: Path, tmp_path: Path
) -> None:
    file = project / "docs" / "quickstart.ipynb"
    source = CELLS.replace("sys.argv[1]", repr(str(file)))
    printed = executed(source, tmp_path, 580)
    assert "report shows <iframe srcdoc=" in printed
    assert "predict shows <div>" in printed


def test_the_notebook_is_kept_without_outputs(project: Path) -> None:
    notebook = json.loads((project / "docs" / "quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    for cell in cells:
        ast.parse("".join(cell["source"]))
