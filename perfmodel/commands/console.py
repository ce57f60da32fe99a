"""Where results go: to standard output or a file, progress and sentences to standard error. All printing is done here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

NARROWEST: Final = 80  # columns: tables are laid out for no fewer, so that no number is ever cut
STOPPED: Final = 130  # the exit code of what Ctrl-C ended


def wants_json(as_json: bool, output: Path | None) -> bool:
    """Whether the result is wanted as JSON: asked for, or for a file that ends in .json."""
    return as_json or (output is not None and output.suffix.lower() == ".json")


def form_of(output: Path | None, *, as_json: bool = False, as_csv: bool = False, as_markdown: bool = False) -> str:
    """json, csv, markdown or table: what was asked for, else what the name of the file says. Errors: InputError for two."""
    asked = [name for name, wanted in (("json", as_json), ("csv", as_csv), ("markdown", as_markdown)) if wanted]
    if len(asked) > 1:
        raise InputError(f"--{asked[0]} and --{asked[1]}: one form at a time")
    named = {".json": "json", ".csv": "csv", ".md": "markdown"}.get("" if output is None else output.suffix.lower(), "table")
    return asked[0] if asked else named


def emit(
    form: str,
    output: Path | None,
    *,
    document: Callable[[], Any],
    report: Callable[[], RenderableType],
    rows: Callable[[], Sequence[Mapping[str, Any]]],
) -> None:
    """A result in one of the forms of `form_of`; only what that form needs is made."""
    if form == "json":
        emit_json(document(), output)
    elif form == "csv":
        from perfmodel.report.text.rows import csv_text

        _emit_text(csv_text(rows()), output)
    elif form == "markdown":
        from perfmodel.report.text.markdown import as_markdown

        _emit_text(as_markdown(report()), output)
    else:
        emit_table(report(), output)


def _emit_text(text: str, output: Path | None) -> None:
    if output is None:
        printed(text)
    else:
        write_file(text, output)


def emit_json(document: Any, output: Path | None) -> None:
    """A document as JSON, to standard output or to a file; escaped as JSON has it where standard output lacks its letters."""
    import json

    encoding = "utf-8" if output is not None or sys.stdout is None else sys.stdout.encoding
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    _emit_text(text, output)


def emit_table(content: RenderableType, output: Path | None) -> None:
    """Tables, to a terminal as wide as it is, to a pipe as plain text, to a file in 120 columns."""
    if output is not None:
        from perfmodel.report.text.terminal import as_text

        write_file(as_text(content, width=120), output)
        return
    columns = max(shutil.get_terminal_size().columns, NARROWEST)
    if sys.stdout is None or not sys.stdout.isatty():
        from perfmodel.report.text.terminal import as_text

        printed(as_text(content, width=columns))
        return
    from rich.console import Console

    console = Console(width=columns, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(content)
    printed(captured.get())


def printed(text: str) -> None:
    """To standard output; a reader that has seen enough (`| head`) is no error."""
    if sys.stdout is None:
        raise InputError("standard output is closed; open it, or write to a file with --output")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:  # a locale without the letters of a name
        printed(text.encode(sys.stdout.encoding, errors="backslashreplace").decode(sys.stdout.encoding))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise InputError(f"standard output cannot be written to: {(error.strerror or 'unknown reason').lower()}") from None


def say(sentence: str, *, prefix: str = "perfmodel: ") -> None:
    """One line to standard error."""
    print(f"{prefix}{sentence}", file=sys.stderr)


def write_file(content: str | bytes, output: Path) -> None:
    """Write a file, whole or not at all, and say so; compressed where its name ends in .gz."""
    from perfmodel.exchange.output import as_bytes, write_bytes, write_text

    if output.suffix.lower() == ".gz":
        from gzip import compress

        write_bytes(output, compress(as_bytes(content), mtime=0))
    elif isinstance(content, str):
        write_text(output, content)
    else:
        write_bytes(output, content)
    say(f"wrote {output}", prefix="")


def progress(items: Sequence[Any], what: str) -> Any:
    """`items` one by one, with a progress bar where standard error is a terminal."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description=what, console=Console(stderr=True), transient=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that is told how many of how many; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def warn_of(sentences: Sequence[str]) -> None:
    """Say sentences that a user should hear before trusting the result."""
    for sentence in sentences:
        say(f"warning: {sentence}")


def drawing_module(figure: Path | None, name: str = "perfmodel.report.figures.measured") -> Any:
    """The module that draws. Errors: InputError for a kind of file that it cannot draw, or without matplotlib."""
    if figure is None:
        return None
    if kind_of(figure) not in ("png", "svg"):
        raise InputError(f"--figure {figure} is neither a .png nor an .svg file")
    try:
        import_module("matplotlib")
        return import_module(name)
    except ImportError:
        raise InputError("--figure needs matplotlib; pip install 'perfmodel[report]' brings it") from None


def kind_of(figure: Path) -> str:
    """The kind of picture that a file name asks for: png, svg or something else."""
    return figure.suffix.lower().removeprefix(".")
