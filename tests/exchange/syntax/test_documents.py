"""Is every way in which a file can be broken told in one sentence?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.syntax.documents import parse_text, read_mapping


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.yaml", b"", "is empty"),
        ("blank.json", b"  \n", "is empty"),
        ("blank.toml", b"\n", "is empty"),
        ("binary.yaml", bytes(range(128, 256)), "is not a text file"),
        ("zeros.yaml", b"a: 1\0", "is not a text file"),
        ("large.yaml", b"a: 1\n" * 2_000_000, "is 10.0 MB; files of at most 1 MB are read"),
        ("list.yaml", b"[1, 2]", "holds a list"),
        ("text.yaml", b"hello", "holds text"),
        ("number.json", b"3", "holds a number"),
        ("twice.yaml", b"name: x\nname: y\n", "name: this key is given twice"),
        ("cut.yaml", b"a: [1, {", "not valid YAML at line 2"),
        ("tag.yaml", b"a: !!python/object:os.system x", "not valid YAML"),
        ("cut.json", b'{"a": ', "not valid JSON"),
        ("cut.toml", b"a = = 1", "not valid TOML"),
        ("long.yaml", b"a: " + b"9" * 5000, "not valid YAML"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("deep.yaml", b"[" * 100_000, "nested too deeply"),
        ("dashes.yaml", b"- " * 100_000, "nested too deeply"),
        ("twice.json", b'{"name": 1, "name": 2}', "name: this key is given twice"),
        ("bool.yaml", b"a: !!bool maybe", "a tag .* does not fit its value"),
        ("time.yaml", b"a: !!timestamp foo", "a tag .* does not fit its value"),
    ],
)
def test_a_broken_file_is_told_in_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    """The file is named, and what is wrong with it."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        read_mapping(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_is_not_read(tmp_path: Path) -> None:
    """It asks for a file in it."""
    with pytest.raises(InputError, match="is a directory"):
        read_mapping(tmp_path)


def test_a_missing_file_is_not_read(tmp_path: Path) -> None:
    """The reason of the operating system is passed on."""
    with pytest.raises(InputError, match="no such file"):
        read_mapping(tmp_path / "none.yaml")


def test_an_unreadable_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its permissions forbid it (which root would not notice)."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "run.yaml"
    path.write_text("a: 1")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="cannot be read: permission denied"):
        read_mapping(path)


def test_many_keys_are_read_in_a_moment(tmp_path: Path) -> None:
    """Looking for keys given twice takes one pass, not one a key."""
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"k{index}: 1\n" for index in range(60_000)))
    assert len(read_mapping(path)) == 60_000


def test_yaml_is_read_as_version_1_2() -> None:
    """200e9 is a number, no and on are words, 010 is ten, 12:30 is text, a merge key merges."""
    text = "{a: 200e9, b: no, c: 010, d: 12:30, e: true, f: ~, g: 1_000, h: .5}"
    assert parse_text(text) == {"a": 200e9, "b": "no", "c": 10, "d": "12:30", "e": True, "f": None, "g": "1_000", "h": 0.5}
    assert parse_text("base: &b {x: 1}\nother: {<<: *b, y: 2}") == {"base": {"x": 1}, "other": {"x": 1, "y": 2}}


@pytest.mark.parametrize(("suffix", "text"), [(".yaml", "a: 1"), (".json", '{"a": 1}'), (".toml", "a = 1")])
def test_three_formats_say_the_same(tmp_path: Path, suffix: str, text: str) -> None:
    """The extension decides; a byte-order mark does not matter."""
    path = tmp_path / f"run{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_mapping(path) == {"a": 1}
