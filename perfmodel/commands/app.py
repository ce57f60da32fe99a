"""The command line: every command is a module beside this one; here they become one program.

Exit codes: 0 yes, 1 no (it does not fit, a threshold is missed), 2 wrong input, 3 not supported yet,
4 the machine failed, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Final, NoReturn

import typer

from perfmodel import __version__
from perfmodel.commands.console import STOPPED, all_printed, emit_json, printed, say
from perfmodel.commands.other_words import NEEDED, SpokenCommand, other_command, other_words
from perfmodel.errors import InputError, MachineError, PerfmodelError, write_failure

PANELS: Final[Mapping[str, Mapping[str, str]]] = {  # by panel, each command with its function: only what is asked for is loaded
    "Predict": {"predict": "predict:predict", "infer": "infer:infer", "explain": "explain:explain"},
    "Choose": {"whatif": "choices.whatif:whatif", "sweep": "choices.sweep:sweep", "plan": "choices.plan:plan"},
    "Measure and validate": {
        "validate": "measured.validate:validate",
        "calibrate": "measured.calibrate:calibrate",
        "measure": "measured.measure:measure",
        "compare": "measured.compare:compare",
        "diagnose": "measured.diagnose:diagnose",
    },
    "Report and look up": {
        "convert": "convert:convert",
        "launch": "launch:launch",
        "report": "report:report",
        "timeline": "timeline:timeline",
        "show": "catalogue.show:show",
        "list": "catalogue.list:list_presets",
        "schema": "catalogue.schema:schema",
    },
}
INTERRUPTED: Final = "stopped before it was done"
COMMANDS: Final = {name: panel for panel, commands in PANELS.items() for name in commands}


def program(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """The program with some of its commands: each is loaded and built, and all of them take a fifth of a start."""
    made = typer.Typer(
        name="perfmodel",
        help="Predict LLM training: iteration time, MFU, memory and days, before anyone rents the cluster.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_perfmodel)
    for name in names:
        panel = COMMANDS[name]
        made.command(name, cls=SpokenCommand, rich_help_panel=panel)(_function(PANELS[panel][name]))
    return made


def _function(path: str) -> Callable[..., None]:
    module, _, name = path.partition(":")
    function: Callable[..., None] = getattr(import_module(f"perfmodel.commands.{module}"), name)
    return function


def _version(wanted: bool) -> None:
    if wanted:
        printed(f"perfmodel {__version__}\n")
        raise typer.Exit


def _perfmodel(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of the whole program; its help text is that of `program`."""


def main() -> None:
    """Run the command; on an error print one sentence to standard error and exit with its code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no prediction uses them, and starting threads is a fifth of the start
    if sys.flags.optimize > 1:
        say("warning: Python runs without docstrings (-OO or PYTHONOPTIMIZE=2): help texts and equations are left out")
    asked = [name for name in sys.argv[1:2] if name in COMMANDS]
    try:
        try:
            program(asked or COMMANDS)()
        finally:
            all_printed()
    except KeyboardInterrupt:
        say(INTERRUPTED)
        sys.exit(STOPPED)
    except PerfmodelError as error:
        _end(error)
    except MemoryError:
        _end(MachineError("this takes more memory than the machine gives"))
    except ArithmeticError:
        _end(InputError("a number of the input is far too large or too small: no finite result follows from it"))
    except RecursionError:
        _end(InputError("the input is nested too deeply"))
    except OSError as error:
        _end(write_failure(str(error.filename or "standard output or another file"), error))
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            sys.exit(0)  # of a help text that nobody reads on, which typer calls an error
        _tell_why(stop, "".join(asked))
        raise


def _tell_why(stop: SystemExit, command: str) -> None:
    """What is said where typer ends the program: nothing, where it has said all."""
    reason = stop.__context__
    if stop.code == STOPPED and isinstance(getattr(reason, "__cause__", None), KeyboardInterrupt):
        say(INTERRUPTED)  # typer made an exit of it; commands that show what they have end without a cause
    usage = getattr(reason, "format_message", None)  # of an option that is none, which typer has told people
    if usage is not None:
        asked = getattr(getattr(reason, "ctx", None), "command", None)
        hint = (
            other_words(command, str(getattr(reason, "option_name", "")), [each.name for each in getattr(asked, "params", ())])
            if command
            else other_command(sys.argv[1])
        )
        hint = hint or NEEDED.get(getattr(getattr(reason, "param", None), "name", ""), "")
        if hint:
            say(hint)
        _tell_programs("UsageError", f"{usage()}{hint and f'; {hint}'}", int(stop.code or 0))


def _end(error: PerfmodelError) -> NoReturn:
    sentence = " ".join(str(error).split())
    say(sentence)
    _tell_programs(type(error).__name__, sentence, error.exit_code, key=error.key)
    sys.exit(error.exit_code)


def _tell_programs(kind: str, sentence: str, code: int, *, key: str = "") -> None:
    """The error as JSON on standard output, where --json alone was asked for: a program reads nothing else."""
    if "--json" in sys.argv and not {"--csv", "--markdown"} & set(sys.argv):
        error = {"kind": kind, "message": sentence, "key": key, "exit_code": code}
        with suppress(PerfmodelError):  # standard output may be what failed
            emit_json({"schema_version": 1, "error": error}, None)
