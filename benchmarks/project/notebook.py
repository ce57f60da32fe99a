"""Runs a notebook without Jupyter, and writes what its cells give into it: what they print, their last value, their figures.

    python -m perfmodel.benchmarks.project.notebook docs/first_steps.ipynb

A cell runs as Jupyter runs it: all cells share their names, and the value of a last expression is shown, as HTML where it has
some. Figures that pyplot knows are shown and closed at the end of each cell. Nothing but the standard library and
matplotlib is needed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from perfmodel.exchange.output import write_text

DOTS_PER_INCH: Final = 110
UNDATED: Final = {"Software": None}


def executed(notebook: dict[str, Any], *, name: str = "notebook") -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, as a notebook holds them; what a cell raises is raised here."""
    import matplotlib as mpl

    mpl.use("agg")
    names: dict[str, Any] = {"__name__": name}
    return [[*_outputs("".join(cell["source"]), names, number)] for number, cell in enumerate(code_cells(notebook), start=1)]


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that run."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _outputs(source: str, names: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        value = _value(source, names, f"cell {number}")
    if printed.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": lines_of(printed.getvalue())}
    if value is not None:
        shown = {"text/plain": lines_of(repr(value))}
        to_html = getattr(value, "_repr_html_", None)
        shown |= {} if to_html is None else {"text/html": lines_of(to_html())}
        yield {"data": shown, "execution_count": number, "metadata": {}, "output_type": "execute_result"}
    for picture in _pictures():
        yield {"data": {"image/png": picture}, "metadata": {}, "output_type": "display_data"}


def _value(source: str, names: dict[str, Any], file: str) -> Any:
    """Run a cell; the value of its last line where that is an expression without a semicolon behind it."""
    tree = ast.parse(source, file)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, file, "exec"), names)  # noqa: S102 - the notebooks are ours
    if not isinstance(last, ast.Expr):
        return None
    value = eval(compile(ast.Expression(last.value), file, "eval"), names)  # noqa: S307
    return None if source.rstrip().endswith(";") else value


def _pictures() -> Iterator[str]:
    """The figures that pyplot knows, as PNG."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    import matplotlib.pyplot as plt

    for number in plt.get_fignums():
        content = io.BytesIO()
        plt.figure(number).savefig(content, format="png", dpi=DOTS_PER_INCH, metadata=UNDATED)
        yield b64encode(content.getvalue()).decode()
    plt.close("all")


def lines_of(text: str) -> list[str]:
    r"""A text as notebooks hold it: lines with their ends.

    >>> lines_of("one\ntwo")
    ['one\n', 'two']
    """
    return text.splitlines(keepends=True)


def renewed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its cells give now."""
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), executed(notebook), strict=True), start=1):
        cell |= {"outputs": outputs, "execution_count": number}
    return notebook


def main() -> None:
    """Renew the notebooks that are named."""
    for path in map(Path, sys.argv[1:]):
        write_text(path, json.dumps(renewed(json.loads(path.read_text())), indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
