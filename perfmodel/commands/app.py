"""The command line: every command is a module beside this one; here they become one program.

Exit codes: 0 yes, 1 no (it does not fit, a bar is missed), 2 the input is wrong, 3 not supported yet, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from perfmodel import __version__
from perfmodel.commands import comparing, deciding, explaining, measuring, planning, predicting, showing, validating
from perfmodel.commands.console import say
from perfmodel.errors import PerfmodelError

app = typer.Typer(
    name="perfmodel",
    help="How long a training iteration takes, the MFU, whether it fits in memory, and how many days a run takes.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PREDICT, DECIDE, SHOW, MEASURE = "What a run will do", "What to change", "What to show", "How right it is"
COMMANDS = (
    (PREDICT, predicting.predict),
    (PREDICT, explaining.explain),
    (DECIDE, deciding.whatif),
    (DECIDE, deciding.sweep),
    (DECIDE, planning.plan),
    (MEASURE, validating.validate),
    (MEASURE, measuring.calibrate),
    (MEASURE, measuring.measure),
    (MEASURE, comparing.compare),
    (SHOW, showing.report),
    (SHOW, showing.timeline),
    (SHOW, predicting.show),
)
for panel, command in COMMANDS:
    app.command(rich_help_panel=panel)(command)
app.command("list", rich_help_panel=SHOW)(predicting.list_presets)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"perfmodel {__version__}")
        raise typer.Exit


@app.callback()
def perfmodel(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Predict LLM training performance before anyone rents the cluster."""


def main() -> None:
    """Run the command; say what went wrong in one sentence, and exit as DESIGN.md, section 6 has it."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no prediction uses them, and starting threads is a fifth of the start
    gc.set_threshold(100_000)  # importing makes many objects and hardly any garbage: passes over them cost a tenth of the start
    try:
        app()
    except PerfmodelError as error:
        say(" ".join(str(error).split()))
        sys.exit(error.exit_code)
