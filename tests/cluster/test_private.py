"""Names that libraries keep to themselves: all are there, and used from one module alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from catdog.cluster import private

PACKAGE = Path(private.__file__).resolve().parents[1]


@pytest.mark.parametrize("name", private.names(), ids=lambda name: name.path)
def test_the_installed_version_has_it(name: private.Name) -> None:
    assert name.get() is not None


def test_a_name_that_is_gone_is_told_with_its_reason() -> None:
    gone = private.Name("zipfile", "_Gone.attribute", "it was good for something")
    with pytest.raises(ImportError, match=r"Python 3\S+ has no zipfile._Gone.attribute: it was"):
        gone.get()
    module = private.Name("ray._gone", "x", "why")
    with pytest.raises(ImportError, match=r"Ray \S+ has no ray._gone.x: why \(seen with 2\.56"):
        module.get()


def test_what_only_an_optimizer_or_a_group_at_work_has() -> None:
    import inspect

    import keras

    optimizer = keras.optimizers.AdamW(use_ema=True)
    variable = keras.Variable([1.0], trainable=True)
    optimizer.build([variable])
    mean, square = private.moments(optimizer, variable)
    assert tuple(mean.shape) == tuple(square.shape) == (1,)
    averages = private.moving_averages(optimizer)
    assert averages is not None
    assert len(averages) == 1
    assert private.moving_averages(object()) is None
    assert "_worker_group_state" in inspect.getsource(private.WORKER_GROUP.get())


def test_no_other_module_imports_such_names() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.name == "private.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                named = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                named = [f"{node.value.id}.{node.attr}"]
                if node.value.id not in ("ray", "keras", "tf", "zipfile", "tarfile"):
                    continue
            else:
                continue
            for name in named:
                private_name = re.search(r"\._[a-z](?!_)|keras\.src", f".{name}")
                assert not private_name or name.startswith(("catdog.", "__future__")), (
                    f"{file.name}: {name}"
                )
