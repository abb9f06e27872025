"""The benchmark's entry point and its parts, on a few drawings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACT = {
    "ingest": {
        "images_per_second",
        "ratio_to_tf_data",
        "ratio_to_read_images",
        "ratio_to_codec_limit",
        "peak_memory_bytes",
    },
    "feed": {"images_per_second", "ratio_to_memory"},
    "predict": {"images_per_second", "ratio_to_bare_model"},
}


def benchmark(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/benchmark.py", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )


def test_help_names_the_parts_and_imports_neither_ray_nor_tensorflow(project: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['jobs/benchmark.py', '--help']\n"
        "try: runpy.run_path('jobs/benchmark.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'ray', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ingest" in done.stdout
    assert "feed" in done.stdout


def test_an_unknown_part_is_a_users_mistake(project: Path, tmp_path: Path) -> None:
    done = benchmark(project, "speed", "--json", str(tmp_path / "b.json"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_feed_writes_its_part_of_the_contract_and_keeps_others(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "b.json"
    file.write_text('{"sweep": {"speedup": 2.0}}')
    done = benchmark(project, "feed", "--files", "600", "--image-size", "64", "--json", str(file))
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())
    assert set(results["feed"]) >= CONTRACT["feed"]
    assert results["feed"]["ratio_to_memory"] > 0.05
    assert results["sweep"] == {"speedup": 2.0}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ingest_writes_its_part_of_the_contract(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    done = benchmark(
        project, "ingest", "--files", "600", "--image-size", "64", "--rounds", "1",
        "--json", str(file), "--work", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())["ingest"]
    assert set(found) >= CONTRACT["ingest"]
    assert found["photos"] == 600
    assert found["real_photos"] is False
    assert min(found[name] for name in CONTRACT["ingest"]) > 0
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_predict_writes_its_part_of_the_contract(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    done = benchmark(
        project, "predict", "--files", "200", "--image-size", "32", "--rounds", "1",
        "--json", str(file), "--work", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())["predict"]
    assert set(found) >= CONTRACT["predict"]
    assert found["photos"] == 200
    assert found["real_photos"] is False
    assert found["ratio_to_bare_model"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]
