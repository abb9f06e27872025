"""How numbers and names are shown, and that no name can act as markup."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from catdog.report import wording

hostile = st.text(
    st.sampled_from("<>[]()!|`*_~#+-=&;:/@\\\"'{}$.1 \n\r\t\u202e\u2028ab&lt;"), max_size=30
)


@pytest.mark.parametrize(
    "value, shown",
    [(0.9333, "93.3\u00a0%"), (1.0, "100.0\u00a0%"), (0.0, "0.0\u00a0%"), (None, "—")],
)
def test_percent(value: float | None, shown: str) -> None:
    assert wording.percent(value) == shown


@pytest.mark.parametrize(
    "value, shown", [(0.0421, "4.2"), (-0.0123, "−1.2"), (-0.0001, "0.0"), (0.0, "0.0")]
)
def test_points_have_a_true_minus_and_no_negative_zero(value: float, shown: str) -> None:
    assert wording.points(value) == shown


@pytest.mark.parametrize("value, shown", [(0.042, "+4.2"), (-0.01, "−1.0"), (0.0, "0.0")])
def test_signed_points(value: float, shown: str) -> None:
    assert wording.points(value, sign=True) == shown


@pytest.mark.parametrize(
    "p, shown",
    [
        (0.0004, "p < 0.001"),
        (0.0123, "p = 0.012"),
        (0.049, "p = 0.049"),
        (0.29, "p = 0.29"),
        (1, "p = 1"),
    ],
)
def test_p_values_never_read_as_zero(p: float, shown: str) -> None:
    assert wording.p_value(p).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    "seconds, shown", [(42.4, "42 s"), (672, "11.2 min"), (3900, "1 h 05 min"), (None, "—")]
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert wording.duration(seconds).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    "value, shown",
    [
        (4.567, "4.57"),
        (45.67, "45.7"),
        (456.7, "457"),
        (12345.6, "12\u202f346"),
        (0, "0"),
        (0.0123, "0.0123"),
    ],
)
def test_significant_digits(value: float, shown: str) -> None:
    assert wording.significant(value) == shown


@pytest.mark.parametrize("user", ["key:word@", "key:se/cret@", "key@", ""])
def test_secrets_of_uris_are_not_shown(user: str) -> None:
    command = f"python x --data s3://{user}bucket/dir?secret_key=abc&x=1 --name n"
    shown = wording.redacted({"command": [command]})
    assert shown == {"command": ["python x --data s3://bucket/dir?… --name n"]}


def test_an_at_sign_in_a_path_is_no_secret() -> None:
    for uri in ("s3://bucket/a@b/cat.jpg", "http://host:8080/a@b", "/photos/a@b:c?.jpg"):
        assert wording.redacted(uri) == uri


def test_a_long_name_is_shortened_in_its_middle() -> None:
    shown = wording.file_name("/photos/" + "a" * 246 + ".jpg")
    assert len(shown) <= 60
    assert shown.startswith("aaa")
    assert shown.endswith(".jpg")


@pytest.mark.parametrize(
    "name", ["two\nlines.jpg", "evil\u202egpj.exe", "a\x00b", "a\u2028b", "\ud800.jpg"]
)
def test_control_characters_are_made_visible(name: str) -> None:
    shown = wording.visible(name)
    assert shown.isprintable()
    assert "\\" in shown
    shown.encode()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(hostile, st.sampled_from(["{}", "- {}", "| a | b |\n|---|---|\n| {} | x |", "**so {}**"]))
def test_no_text_is_markup_in_markdown(text: str, place: str) -> None:
    """Rendered as CommonMark with tables and raw HTML allowed, the words are all that comes out."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = renderer.render(place.format(wording.markdown(text)))
    tags = set(re.findall(r"<(/?\w+)", page))
    allowed = {"p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong"}
    assert {tag.strip("/") for tag in tags} <= allowed, page
    words = html.unescape(re.sub(r"<[^>]*>", "", page)).replace("\u2060", "")
    wanted = wording.visible(text).strip(" ")
    assert re.sub(r"\s+", "", wanted) in re.sub(r"\s+", "", words), page


@settings(max_examples=100, deadline=None, derandomize=True)
@given(hostile.filter(lambda text: text.strip() != ""))
def test_a_command_is_copied_as_it_is(text: str) -> None:
    page = MarkdownIt("commonmark").render(f"Before\n\n{wording.code_block(text)}\n\nAfter")
    found = re.fullmatch(r"<p>Before</p>\n<pre><code>(.*)\n</code></pre>\n<p>After</p>\n", page)
    assert found, page
    assert html.unescape(found[1]) == wording.visible(text)


def test_models_have_names_for_people() -> None:
    assert wording.title("resnet50v2") == "ResNet50V2"
    assert wording.title("base_cnn+tta") == "Base CNN, with mirror image"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
