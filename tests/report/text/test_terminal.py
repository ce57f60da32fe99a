"""Do names break where a reader would break them, and does nothing get lost?"""

from __future__ import annotations

import pytest

from perfmodel.report.text.terminal import Name, as_text, broken_lines, plain_table


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("layer.mlp.fc1", 20, ["layer.mlp.fc1"]),
        ("cluster.links.network.bandwidth_bytes_per_s", 30, ["cluster.links.network.", "bandwidth_bytes_per_s"]),
        ("nemotron-4-15b", 11, ["nemotron-4-", "15b"]),
        ("  all-gather 5 MB over 288", 18, ["  all-gather 5 MB", "  over 288"]),
        ("someone/benchmarks v24.11.1..v25.01.1", 30, ["someone/benchmarks", "v24.11.1..v25.01.1"]),
        ("", 10, [""]),
    ],
)
def test_where_names_break(name: str, width: int, expected: list[str]) -> None:
    """After spaces; inside a word after its dots, inside its parts after dashes, only where they are too long for a line."""
    assert list(broken_lines(name, width)) == expected


def test_a_long_name_is_all_there() -> None:
    """A name without any mark folds in its column, and the column beside it stays whole."""
    table = plain_table()
    table.add_column("number")
    table.add_column("value", no_wrap=True)
    table.add_row(Name("x" * 200), "12,345.678")
    lines = as_text(table, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines) == 200
    assert any(line.endswith("12,345.678") for line in lines)
