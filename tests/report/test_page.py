"""The pages: sections, escaping, size, and what they do without."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from catdog.report import build
from catdog.report.facts import money
from catdog.storage import Location

VOID = {"meta", "link", "img", "br", "input", "hr"}
SECTIONS = [
    "numbers",
    "cost",
    "pairs",
    "training",
    "errors",
    "calibration",
    "photos",
    "slices",
    "data",
    "sweep",
    "repeat",
]


class Page(HTMLParser):
    """Elements with their attributes, texts, and a check that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u202f", " "))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def built(*runs: Any, **options: Any) -> Page:
    page = build([Location.of(run.path) for run in runs], **options)
    return Page(page.read_text())


@pytest.fixture(scope="module")
def page(finished_run: Any) -> Page:
    return built(finished_run, price_per_hour=1.2)


def test_all_sections_are_there_and_the_contents_lead_to_them(page: Page) -> None:
    assert [section["id"] for section in page.all("section")] == SECTIONS
    links = [a["href"] for a in page.all("a") if "class" not in a]
    assert links == [f"#{name}" for name in SECTIONS]


def test_the_verdict_stands_before_everything_else(page: Page) -> None:
    ids = [attributes.get("id") for _, attributes in page.elements if attributes.get("id")]
    assert ids[0] == "verdict"


def test_headings_do_not_skip_a_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_picture_has_words(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) > 20
    assert all((picture["alt"] or "").strip() for picture in pictures)
    for drawing in page.all("svg"):
        hidden = drawing.get("aria-hidden") == "true"
        assert hidden or (drawing["role"] == "img" and drawing["aria-label"]), drawing


def test_nothing_outside_the_page_is_named(page: Page, finished_run: Any) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value!r}>"
    text = (finished_run.path / "report.html").read_text()
    assert not re.search(r"@import|url\((?!data:)", text)


def test_only_our_own_script_may_run(page: Page) -> None:
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, a in page.elements for name in a)


def test_numbers_shown_are_the_numbers_of_the_json(page: Page, finished_run: Any) -> None:
    tree = json.loads((finished_run.path / "report.json").read_text())
    text = page.text.replace("\u00a0", " ")
    for model in tree["models"]:
        test = model["test"]
        assert f"{100 * test['accuracy']:.1f} %" in text
        low, high = test["accuracy_ci95"]
        assert f"{100 * low:.1f}–{100 * high:.1f} %" in text
        assert f"{test['loss']:.3f}" in text
        assert f"{test['auc']:.3f}" in text
        assert f"{100 * test['ece']:.1f} %" in text
        assert money(model["train"]["cost"]) in text
    for pair in tree["comparisons"]:
        assert f"{100 * pair['accuracy_difference']:+.1f}" in text


def test_the_run_can_be_repeated_from_what_is_written(page: Page) -> None:
    text = page.text
    for words in (
        "python jobs/train.py --data /data/photos",
        "tensorflow 2.21.0",
        "AMD EPYC",
        "05edeebc0ffee",
        "fingerprint e59a3591f8c9",
        "1 restart, continued after an interruption",
        "float32",
    ):
        assert words in text.replace("\u00a0", " "), words


def test_markdown_says_the_same(finished_run: Any, page: Page) -> None:
    text = (finished_run.path / "report.md").read_text()
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    verdict = page.text.split("which model to use")[1].split(".")[0].strip()
    assert verdict in re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", rendered))
    assert rendered.count("<table>") >= 8
    assert "None" not in text
    assert "Undefined" not in text


def test_each_model_has_a_card(finished_run: Any, page: Page) -> None:
    tree = json.loads((finished_run.path / "report.json").read_text())
    for model in tree["models"]:
        card = (finished_run.path / "models" / model["name"] / "MODEL_CARD.md").read_text()
        assert f"{100 * model['test']['accuracy']:.1f}\u00a0%" in card
        assert f"dividing logits by {model['calibration']['temperature']:.2f}" in card
        assert "None" not in card


# Hostile names


def test_hostile_names_are_only_words(hostile_run: Any) -> None:
    page = built(hostile_run)
    assert page.text.count("window.hacked=1") >= 2, "the names are not shown at all"
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert "{{ 7*7 }}" in page.text
    assert "evil\\u202egpj.exe.jpg" in page.text
    assert "\u202e" not in page.text
    assert all(len(word) <= 60 for word in re.findall(r"a+…a+\.jpg", page.text))


def test_hostile_names_are_only_words_in_markdown(hostile_run: Any) -> None:
    built(hostile_run)
    for file in [hostile_run.path / "report.md", *hostile_run.path.glob("models/*/MODEL_CARD.md")]:
        renderer = MarkdownIt("commonmark", {"html": True}).enable("table")
        tags = set(re.findall(r"<(\w+)", renderer.render(file.read_text())))
        allowed = {"h1", "h2", "h3", "p", "strong", "ul", "li", "table", "thead", "tbody"}
        assert tags <= allowed | {"tr", "th", "td", "blockquote", "pre", "code"}, file


def test_hostile_records_are_only_words(new_run: Callable[..., Any]) -> None:
    evil = "</script><script>window.hacked=1</script>{{ 7*7 }}\x1b[31m"
    run = new_run(n_test=20)
    file = run.path / "run.json"
    record = json.loads(file.read_text())
    record |= {"name": evil, "error": evil, "status": "failed", "notes": [evil], "command": evil}
    record["versions"] = {evil: evil}
    record["hardware"]["cpu"] = evil
    file.write_text(json.dumps(record))
    trials = run.path / "sweeps/efficientnet_lite0/trials.json"
    tree = json.loads(trials.read_text())
    tree["trials"][0] |= {"id": evil, "status": evil, "config": {evil: evil}}
    trials.write_text(json.dumps(tree))
    page = built(run)
    assert len(page.all("script")) == 1
    assert "\x1b" not in page.text


# What is missing or damaged


@pytest.mark.parametrize(
    "gone",
    [
        "run.json",
        "config.yaml",
        "events.jsonl",
        "data",
        "data/photos.parquet",
        "data/rejected.parquet",
        "artifacts",
        "models",
        "sweeps",
        "models/base_cnn",
        "models/efficientnet_lite0/model.json",
        "models/efficientnet_lite0/history.json",
        "models/efficientnet_lite0/predictions.parquet",
        "models/efficientnet_lite0/artifacts",
    ],
)
def test_a_report_is_made_without(new_run: Callable[..., Any], gone: str) -> None:
    run = new_run(n_test=20, models=["base_cnn", "efficientnet_lite0"])
    target: Path = run.path / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert built(run).all("section")


@pytest.mark.parametrize(
    "damaged",
    [
        "run.json",
        "config.yaml",
        "events.jsonl",
        "data/manifest.json",
        "data/photos.parquet",
        "data/rejected.parquet",
        "artifacts/thumbnails.parquet",
        "models/base_cnn/model.json",
        "models/base_cnn/history.json",
        "models/base_cnn/predictions.parquet",
        "models/base_cnn/artifacts/gradcam.parquet",
        "sweeps/efficientnet_lite0/trials.json",
    ],
)
@pytest.mark.parametrize("content", [b"\x00\xff{[", b"[1, 2]"])
def test_a_damaged_file_is_passed_over(damage_run: Path, damaged: str, content: bytes) -> None:
    target = damage_run / damaged
    before = target.read_bytes()
    target.write_bytes(content)
    try:
        page = Page(build([Location.of(damage_run)]).read_text())
    finally:
        target.write_bytes(before)
    assert page.all("section")


@pytest.fixture(scope="module")
def damage_run(tmp_path_factory: pytest.TempPathFactory, finished_run: Any) -> Path:
    path = tmp_path_factory.mktemp("damaged") / "photos"
    shutil.copytree(finished_run.path, path)
    return path


@pytest.mark.parametrize("odd", [None, "text", [], {}, -1, True])
def test_values_of_another_kind_are_passed_over(new_run: Callable[..., Any], odd: object) -> None:
    """Every value of every JSON file at once is what nobody expects; names stay names."""
    run = new_run(n_test=20, models=["base_cnn", "efficientnet_lite0"])

    def spoilt(tree: object) -> object:
        if isinstance(tree, dict):
            return {key: spoilt(value) for key, value in tree.items()}
        return [spoilt(item) for item in tree] if isinstance(tree, list) else odd

    for file in run.path.rglob("*.json"):
        file.write_text(json.dumps(spoilt(json.loads(file.read_text()))))
    page = built(run)
    assert [section["id"] for section in page.all("section")][:2] == ["numbers", "cost"]
    json.loads((run.path / "report.json").read_text())


def test_what_was_left_out_is_said(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20, models=["base_cnn"])
    file = run.path / "models/base_cnn/model.json"
    tree = json.loads(file.read_text())
    tree["train"]["seconds"] = "long"
    file.write_text(json.dumps(tree))
    words = "models/base_cnn/model.json holds values of another kind, left out: train.seconds"
    assert words in built(run).text


def test_a_photo_of_one_class_only_is_reported(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20, models=["base_cnn"])
    file = run.path / "models/base_cnn/predictions.parquet"
    table = pd.read_parquet(file)
    table[(table["split"] != "test") | (table["label"] == 1)].to_parquet(file)
    assert "ROC" not in built(run).text


def test_a_faultless_model_is_reported(new_run: Callable[..., Any]) -> None:
    run = new_run(
        n_test=20,
        skill=dict.fromkeys(("base_cnn", "resnet50v2", "efficientnet_lite0"), (50.0, 0.1)),
    )
    page = built(run)
    assert "No photo is missed by all models." in page.text
    assert "No mistakes on the test photos." in page.text
    assert "left at 1" in page.text


def test_photos_without_thumbnails_say_so(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=40)
    shutil.rmtree(run.path / "artifacts")
    shutil.rmtree(run.path / "models/base_cnn/artifacts")
    assert "no picture kept" in built(run).text


def test_pictures_that_are_none_are_not_embedded(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=40)
    file = run.path / "artifacts/thumbnails.parquet"
    table = pd.read_parquet(file)
    table["thumbnail"] = b"<svg onload='window.hacked=1'>"
    table.to_parquet(file)
    for picture in built(run).all("img"):
        assert (picture["src"] or "").startswith("data:image/jpeg;base64,/9j/")


# Size, speed, independence


def test_a_report_of_2500_test_photos_is_small_and_quick(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=2500, pictures=400, seeds=(1, 2))
    began = time.process_time()  # of this process: the machine may be busy with others
    page = build([Location.of(run.path)])
    seconds = time.process_time() - began
    assert len(page.read_bytes()) < 5_000_000
    assert seconds < 10, f"{seconds:.1f} s of processor time, where two are usual"


def test_large_pictures_are_made_small(new_run: Callable[..., Any]) -> None:
    import io

    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    run = new_run(n_test=40)
    for file in (run.path / "artifacts/thumbnails.parquet", *run.path.rglob("gradcam.parquet")):
        table = pd.read_parquet(file)
        for column in {"thumbnail", "heatmap"} & set(table):
            table[column] = [buffer.getvalue()] * len(table)
        table.to_parquet(file)
    built(run)
    assert (run.path / "report.html").stat().st_size < 3_000_000


def test_neither_ray_nor_tensorflow_is_imported(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20)
    code = (
        "import sys\n"
        "from catdog.report import build\n"
        "from catdog.storage import Location\n"
        f"build([Location.of({str(run.path)!r})])\n"
        "print({'ray', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_the_same_files_give_the_same_pages(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=30)
    names = ("report.html", "report.md", "report.json", "models/base_cnn/MODEL_CARD.md")
    built(run)
    before = [(run.path / name).read_bytes() for name in names]
    built(run)
    assert [(run.path / name).read_bytes() for name in names] == before


def test_several_runs_stand_side_by_side(new_run: Callable[..., Any]) -> None:
    page = built(new_run("one", n_test=30), new_run("two", n_test=30, seed=8))
    assert "EfficientNet-Lite0 (one)" in page.text
    assert "EfficientNet-Lite0 (two)" in page.text
    assert [section["id"] for section in page.all("section")] == SECTIONS
