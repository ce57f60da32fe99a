"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

FORM: Final = "Form"  # the panel of options that choose how a result looks
PRESETS: Final = Path(__file__).parent.parent / "data"


def completed(kind: str) -> Callable[[str], list[str]]:
    """What completes the name of a preset of one kind on the command line (without loading what reads presets)."""
    return lambda incomplete: sorted(path.stem for path in (PRESETS / kind).glob(f"{incomplete}*.yaml"))


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override any key of the run, as in tensor_parallel=4; any number of times."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=FORM)]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.", rich_help_panel=FORM)]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of tables.", rich_help_panel=FORM)]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to FILE instead; .json, .csv and .md choose the form.",
        rich_help_panel=FORM,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A preset run (perfmodel list) or a YAML, TOML or JSON run file.", autocompletion=completed("runs")
    ),
]
