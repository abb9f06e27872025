from __future__ import annotations

import pytest

from catdog.data.labels import UNKNOWN, is_litter, label_named, label_of


@pytest.mark.parametrize(
    "path, label",
    [
        ("cat.0.jpg", 0),
        ("dog.12499.jpg", 1),
        ("CAT.0.JPG", 0),
        ("cat_17.png", 0),
        ("dog-3.webp", 1),
        ("cat7.jpg", 0),
        ("cats (2).jpg", 0),
        ("dogs.1.jpg", 1),
        ("train/cat.0.jpg", 0),
        ("Cat/0.jpg", 0),
        ("PetImages/Dog/666.jpg", 1),
        ("cats/a/b/1.jpg", 0),
        ("DOGS/x.jpg", 1),
        ("cats/cat.1.jpg", 0),
        ("cat", 0),
    ],
)
def test_names_and_folders_tell(path: str, label: int) -> None:
    assert label_of(path) == label


@pytest.mark.parametrize(
    "path",
    [
        "1.jpg",
        "test1/77.jpg",
        "category/1.jpg",
        "catalog.jpg",
        "dogma.1.jpg",
        "my cat.jpg",
        "cats and dogs/1.jpg",
        "Cat/dog.1.jpg",
        "dogs/cats/1.jpg",
        "cat.dog.jpg",
        "wildcat/1.jpg",
    ],
)
def test_nothing_is_guessed(path: str) -> None:
    assert label_of(path) == UNKNOWN


@pytest.mark.parametrize(
    "value, label",
    [("cat", 0), ("Dogs", 1), (0, 0), (1, 1), ("1", 1), (1.0, 1), (" CAT ", 0), ("horse", -1),
     (None, -1), (2, -1), ("", -1)],
)  # fmt: skip
def test_labels_of_a_table(value: object, label: int) -> None:
    assert label_named(value) == label


@pytest.mark.parametrize(
    "path, litter",
    [(".DS_Store", True), ("Cat/Thumbs.db", True), ("__MACOSX/Cat/._1.jpg", True),
     ("Cat/._7.jpg", True), ("Cat/7.jpg", False), ("readme.txt", False), (".hidden.jpg", False)],
)  # fmt: skip
def test_litter(path: str, litter: bool) -> None:
    assert is_litter(path) is litter
