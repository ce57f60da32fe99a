"""Results go to standard output or a file, progress and messages to standard error. All printing is done here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from perfmodel.errors import InputError, write_failure
from perfmodel.printable import one_line, printable, printable_json

if TYPE_CHECKING:
    from rich.console import RenderableType

NARROWEST: Final = 80  # columns: no table is laid out for fewer, so that no number is cut
STOPPED: Final = 130  # exit code after Ctrl-C
ENDINGS: Final = {".json": "json", ".csv": "csv", ".md": "markdown", ".txt": "table"}  # of files, and their formats
TABLES_OR_JSON: Final = {".json": "json", ".txt": "table"}
COMPRESSED: Final = ".gz"


def wants_json(as_json: bool, output: Path | None) -> bool:
    """Whether to write JSON: --json was given, or the output file ends in .json. Errors: InputError for another ending."""
    return as_json or check_ending(output, TABLES_OR_JSON) == "json"


def form_of(output: Path | None, *, as_json: bool = False, as_csv: bool = False, as_markdown: bool = False) -> str:
    """The output format: json, csv, markdown or table, by option or else by the ending of the file.

    Errors: InputError for two options, and for an ending that is none of ENDINGS.
    """
    asked = [name for name, wanted in (("json", as_json), ("csv", as_csv), ("markdown", as_markdown)) if wanted]
    if len(asked) > 1:
        raise InputError(f"--{asked[0]} and --{asked[1]} cannot be combined")
    return asked[0] if asked else check_ending(output, ENDINGS)


def check_ending(output: Path | None, endings: Mapping[str, str]) -> str:
    """The format that the name of a file asks for, with or without .gz behind it; "table" where it has no ending.

    Errors: InputError for another ending, with those that would do.
    """
    name = "" if output is None else output.name
    ending = Path(name[: -len(COMPRESSED)] if name.lower().endswith(COMPRESSED) else name).suffix.lower()
    if ending and ending not in endings:
        *others, last = (*endings, f"{next(iter(endings))}{COMPRESSED}")
        raise InputError(f"--output {output} ends in {ending}, which is no format here; {', '.join(others)} or {last} would do")
    return endings.get(ending, "table")


def emit(
    form: str,
    output: Path | None,
    *,
    document: Callable[[], Any],
    report: Callable[[], RenderableType],
    rows: Callable[[], Sequence[Mapping[str, Any]]],
) -> None:
    """Write a result in one of the formats of `form_of`; only what that format needs is computed."""
    if form == "json":
        emit_json(document(), output)
    elif form == "csv":
        from perfmodel.report.text.rows import csv_text

        _emit_text(printable(csv_text(rows())), output)
    elif form == "markdown":
        from perfmodel.report.text.markdown import as_markdown

        _emit_text(printable(as_markdown(report())), output)
    else:
        emit_table(report(), output)


def _emit_text(text: str, output: Path | None) -> None:
    if output is None:
        printed(text)
    else:
        write_file(text, output)


def emit_json(document: Any, output: Path | None) -> None:
    """Write a document as JSON; non-ASCII characters are escaped where standard output cannot encode them.

    Errors: InputError for a number that is not finite, which JSON cannot hold.
    """
    import json

    encoding = "utf-8" if output is not None or sys.stdout is None else sys.stdout.encoding or "utf-8"
    try:
        text = printable_json(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    except ValueError:
        raise InputError("a number of the result is not finite; one of the input is far too large or too small") from None
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    _emit_text(text, output)


def emit_table(content: RenderableType, output: Path | None) -> None:
    """Write tables: styled to a terminal, plain to a pipe unless FORCE_COLOR is set, plain and 120 columns wide to a file."""
    if output is not None:
        from perfmodel.report.text.terminal import as_text

        write_file(as_text(content, width=120), output)
        return
    columns = max(shutil.get_terminal_size().columns, NARROWEST)
    is_coloured = bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
    if sys.stdout is None or not (sys.stdout.isatty() or is_coloured):
        from perfmodel.report.text.terminal import as_text

        printed(as_text(content, width=columns))
        return
    from rich.console import Console

    from perfmodel.report.text.terminal import Seen

    forced = True if is_coloured else None
    console = Console(width=columns, markup=False, highlight=False, emoji=False, force_terminal=forced)
    with console.capture() as captured:
        console.print(Seen(content))
    printed(captured.get())


def printed(text: str) -> None:
    """Write to standard output; a closed pipe (`| head`) is not an error."""
    if sys.stdout is None:
        raise InputError("standard output is closed; open it, or write to a file with --output")
    try:
        with _waiting_for_readers(sys.stdout):
            sys.stdout.write(text)
            sys.stdout.flush()
    except UnicodeEncodeError:  # the locale cannot encode a name
        printed(text.encode(sys.stdout.encoding, errors="backslashreplace").decode(sys.stdout.encoding))
    except OSError as error:
        _given_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise write_failure("standard output cannot be written to", error) from None


@contextmanager
def _waiting_for_readers(stream: TextIO) -> Iterator[None]:
    """Writes to a stream wait until what reads it keeps up.

    A program that shares the pipe may have told it not to wait; then Python drops what does not fit at once, without a word.
    """
    try:
        handle = stream.fileno()
        waits = os.get_blocking(handle)
    except (OSError, ValueError):  # no file of the system: a text in memory
        waits = True
    if not waits:
        os.set_blocking(handle, True)
    try:
        yield
    finally:
        if not waits:
            os.set_blocking(handle, False)


def all_printed() -> None:
    """See that what libraries printed (help, completion) has left the buffer of standard output, as far as it can go."""
    if sys.stdout is not None and not sys.stdout.closed:
        printed("")


def _given_up(stream: TextIO) -> None:
    """Nothing more can be written to a stream: what is left in its buffer goes nowhere, without an error at the very end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(sentence: str, *, prefix: str = "perfmodel: ") -> None:
    """Print one line to standard error, of what a terminal may show; where it is closed or full, nobody hears it."""
    if sys.stderr is None:
        return
    try:
        print(f"{prefix}{one_line(sentence)}", file=sys.stderr)
    except OSError:
        _given_up(sys.stderr)


def is_watched() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def write_file(content: str | bytes, output: Path) -> None:
    """Write a file, whole or not at all, and report it; compressed if its name ends in .gz."""
    from perfmodel.exchange.output import as_bytes, write_bytes, write_text

    if output.suffix.lower() == COMPRESSED:
        from gzip import compress

        write_bytes(output, compress(as_bytes(content), mtime=0))
    elif isinstance(content, str):
        write_text(output, content)
    else:
        write_bytes(output, content)
    say(f"wrote {output}", prefix="")


def progress(items: Sequence[Any], what: str) -> Any:
    """Iterate over `items`, with a progress bar if standard error is a terminal."""
    if not is_watched():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description=what, console=Console(stderr=True), transient=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, advanced by calls with (done, total); without effect if that is not a terminal."""
    if not is_watched():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def warn_of(sentences: Sequence[str]) -> None:
    """Print warnings to standard error."""
    for sentence in sentences:
        say(f"warning: {sentence}")


def drawing_module(
    figure: Path | None, name: str = "perfmodel.report.figures.measured.steps", *, option: str = "--figure"
) -> Any:
    """The module that draws a figure; None without one. Errors: InputError for another file type, or without matplotlib."""
    if figure is None:
        return None
    if kind_of(figure) not in ("png", "svg"):
        raise InputError(f"{option} {figure} must be a .png or .svg file")
    try:
        import_module("perfmodel.report.figures")  # tells matplotlib what not to tell
        import_module("matplotlib")
        return import_module(name)
    except ImportError:
        raise InputError(f"{option} needs matplotlib; pip install 'perfmodel[report]' brings it") from None


def kind_of(figure: Path) -> str:
    """The file type of a picture, by suffix: png, svg or another."""
    return figure.suffix.lower().removeprefix(".")
