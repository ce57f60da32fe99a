"""The files that `perfmodel plan` writes: the report, its page, and run files and launch files of its best plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any, TypeVar

from perfmodel.commands.console import ENDINGS, progress_bar, say, write_file
from perfmodel.commands.page_files import NO_MATPLOTLIB, page_places, write_page
from perfmodel.errors import InputError, NotSupportedError

if TYPE_CHECKING:
    from perfmodel.exchange.launchers.registry import Launcher
    from perfmodel.exchange.questions.plan_arguments import PlanArguments
    from perfmodel.search.plan import Plan

T = TypeVar("T")


def named_file(output: str | None, to: Path | None) -> Path | None:
    """The file of a plan of training. Errors: InputError where both options name one."""
    if output is not None and to is not None:
        raise InputError(f"--output {output} and --to {to} name two files; give one")
    return to if output is None else Path(output)


def asked_launcher(name: str, output: Path | None) -> Launcher:
    """The launcher of a format. Errors: InputError for one that is not known, and for a file that is a report's."""
    from perfmodel.exchange.launchers.registry import launcher_named

    launcher = launcher_named(name, option="--launch")
    if output is not None and output.suffix.lower() in ENDINGS:
        named = f"with --launch it names the launch file, as in {launcher.file}"
        raise InputError(f"--output {output} is the name of a report; {named}; --json > {output.name} keeps the plan")
    return launcher


def launcher_arguments(launcher: Launcher, source: str | dict[str, Any], arguments: PlanArguments) -> PlanArguments:
    """The arguments with which a search finds what a launch file can say. Errors: NotSupportedError for other software."""
    from perfmodel.exchange.launchers.registry import check_stack, search_limits
    from perfmodel.exchange.questions.plan_arguments import read_plan_request

    limits, chosen = search_limits(launcher), arguments["choose"]
    more: PlanArguments = {
        "usual_stack": limits["usual_stack"],
        "choose": {**limits["choose"], **chosen},
        "all_layers_again": limits["all_layers_again"] and "recompute_layers" not in chosen,
    }
    question = read_plan_request(source, **(arguments | more)).question
    check_stack(question.stack, launcher, hint=f"--stack {launcher.stack}")
    return more


def page_writer(output: str | None) -> Callable[[Plan], None]:
    """A function that writes the page of a plan to a file or a folder; does nothing without one.

    Errors: InputError before any work.
    """
    if output is None:
        return lambda _: None
    path, folder = page_places(output, "--report", "plan.html")
    try:
        from perfmodel.report.html.plan import plan_page
    except ImportError:
        raise InputError(NO_MATPLOTLIB) from None
    command = join(["perfmodel", *sys.argv[1:]]) if sys.argv[1:2] == ["plan"] else ""

    def write(found: Plan) -> None:
        with progress_bar("drawing") as advance:
            page = plan_page(found, command=command, on_progress=advance)
        write_page(page, path, folder)

    return write


def write_runs(found: Plan, path: Path) -> None:
    """Write the best plan as a run file; where stages differ in layout, one numbered file per stage."""
    from perfmodel.exchange.presets import seen_from
    from perfmodel.exchange.syntax.documents import yaml_text
    from perfmodel.report.json.plan import run_documents
    from perfmodel.spec.run import Run

    for one, document in _numbered(path, run_documents(found)):
        write_file(yaml_text(seen_from(one.parent, Run, document)), one)


def write_launch_files(found: Plan, launcher: Launcher, path: Path) -> None:
    """Write the launch file of the best plan; one numbered file for each stage where one cannot hold all."""
    from perfmodel.exchange.launchers.registry import launch_files
    from perfmodel.exchange.questions.plan_arguments import CHOSEN
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.report.json.plan import run_documents

    runs = [read_candidates(document)[0].run for document in run_documents(found)]
    try:
        texts = [text for run in runs for text in launch_files(run, launcher.name)]
    except NotSupportedError as error:
        way_on = f"; --choose {error.key}=.. finds a plan without it" if error.key in CHOSEN else ""
        raise NotSupportedError(f"{error.problem}{way_on}", key=error.key) from None
    for one, text in _numbered(path, texts):
        write_file(text, one)
    if texts:
        say(f"the launch file of the best plan, for {launcher.version}", prefix="")


def _numbered(path: Path, contents: Sequence[T]) -> list[tuple[Path, T]]:
    """Contents of files with their paths: several are numbered. That there are none is said."""
    if not contents:
        say(f"{path} was not written: no plan was found")
    numbers = ["", *(f"-{number}" for number in range(1, len(contents) + 1))]
    used = numbers[:1] if len(contents) == 1 else numbers[1:]
    return [(path.with_name(f"{path.stem}{number}{path.suffix}"), each) for number, each in zip(used, contents, strict=True)]
