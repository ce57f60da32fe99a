"""Does the command line keep its word when the machine does not: full disks, closed streams, links to themselves, Ctrl-C?"""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from perfmodel.commands import app, console
from perfmodel.exchange import output, run_files
from perfmodel.exchange.output import write_text

ROOT = Path(__file__).parents[2]
RUN = ["predict", "nemotron-4-15b"]


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def write(self, _: str) -> int:
        """Refuse it."""
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        """As above, for what a buffer holds."""
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list"], [*RUN, "--json"]])
def test_a_full_disk_behind_standard_output_is_the_machines_fault(
    run: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """`> /dev/full`: exit code 4 and one sentence."""
    monkeypatch.setattr(sys, "stdout", FullDisk())
    done = run(*arguments)
    assert (done.code, done.err) == (4, "perfmodel: standard output cannot be written to: no space left on device\n")


def test_a_pipe_that_does_not_wait_for_its_reader_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another program left it, that shares it and is not told otherwise afterwards."""
    text, (reads, writes) = "x" * 300_000, os.pipe()

    def read_later() -> str:
        time.sleep(0.2)
        return reader.read()

    os.set_blocking(writes, False)
    with ThreadPoolExecutor(1) as pool, os.fdopen(reads) as reader:
        with os.fdopen(writes, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            later = pool.submit(read_later)
            console.printed(text)
            assert not os.get_blocking(writes)
        assert later.result() == text


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["list"]])
def test_a_reader_that_leaves_is_no_error(run: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """`| head -1`: of results and of help texts alike."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        done = run(*arguments)
    assert (done.code, done.err) == (0, "")


def test_a_full_disk_behind_standard_error_changes_no_exit_code(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hears the sentence."""
    monkeypatch.setattr(sys, "stderr", FullDisk())
    assert run("predict", "none.yaml").code == 2


def test_a_closed_standard_error_is_no_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that was meant for it goes to standard output."""
    monkeypatch.setattr(sys, "stderr", None)
    done = run("predict", "none.yaml")
    assert (done.code, done.out) == (2, "")
    assert run("validate", "--memory", ROOT / "none.csv").code == 2


def test_a_link_to_itself_is_one_sentence(run: Any, tmp_path: Path) -> None:
    """As -o and in the middle of a path."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place in (loop, loop / "a.json"):
        assert run(*RUN, "--json", "-o", place).is_refused(2, "cannot be written")


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), 4), (RecursionError(), 2), (OverflowError(), 2), (KeyboardInterrupt(), 130)]
)
def test_what_no_command_expects_is_still_a_sentence(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    """Not a traceback."""

    def failing() -> None:
        raise error

    monkeypatch.setattr(app, "program", lambda _: failing)
    done = run("list")
    assert done.code == code
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", ["predict", "explain", "whatif", "sweep", "report"])
def test_an_interrupt_of_a_command_is_a_sentence(
    run: Any, monkeypatch: pytest.MonkeyPatch, command: str, tmp_path: Path
) -> None:
    """Ctrl-C before there is anything to show: one sentence, exit code 130, no file."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_files, "build", stop)
    options = {"whatif": ["--set", "tensor_parallel=4"], "sweep": ["--vary", "precision=bf16,fp8"]}.get(command, [])
    page = tmp_path / ("a.html" if command == "report" else "a.json")
    done = run(command, "nemotron-4-15b", *options, "-o", page)
    assert (done.code, done.out, done.err) == (130, "", "perfmodel: stopped before it was done\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.processes
@pytest.mark.parametrize("step", ["fsync", "chmod", "replace", "sync_folder"])
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file_or_the_new_one(tmp_path: Path, step: str) -> None:
    """In every window: before the bytes are on the disk, before they take the place of the old ones, and after."""
    path = tmp_path / "a.json"
    path.write_text("old")
    child = os.fork()
    if not child:
        _killed_at(step)
        write_text(path, "new" * 1000)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.read_text() == ("new" * 1000 if step == "sync_folder" else "old")
    others = [tmp_path / ".a.json.of-somebody", tmp_path / ".a.json.perfmodel"]
    for each in others:
        each.touch()
    write_text(path, "newer")
    assert path.read_text() == "newer"
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])  # what the dead process left is gone


def test_a_write_takes_no_file_from_a_writer_that_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second write, while the first is between its bytes and its rename, leaves the first one's file alone."""
    path, real = tmp_path / "a.json", Path.replace
    path.write_text("old")

    def meanwhile(temporary: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", real)
        write_text(path, "second")
        assert temporary.exists()
        return real(temporary, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    write_text(path, "first")
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def _killed_at(step: str) -> None:
    def kill(*_: object, **__: object) -> None:
        os._exit(9)

    owner: Any = {"fsync": os, "sync_folder": output}.get(step, Path)
    setattr(owner, step, kill)


def test_of_two_writers_of_one_file_one_wins_whole(tmp_path: Path) -> None:
    """Each writes a file of its own, and the last rename stays."""
    path = tmp_path / "a.txt"
    children = []
    for letter in "ab":
        child = os.fork()
        if not child:
            for _ in range(20):
                write_text(path, letter * 100_000)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert path.read_text() in {"a" * 100_000, "b" * 100_000}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.processes
def test_an_interrupt_before_anything_is_loaded_is_quiet() -> None:
    """The loading of the program itself may be what Ctrl-C stops; where it is ignored, as in the background, it stays so."""
    script = (
        "import builtins, os, signal, sys\n"
        "real = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'perfmodel.commands.app': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "from perfmodel.__main__ import main\n"
        "builtins.__import__ = interrupted\n"
        "sys.argv = ['perfmodel', '--version']\n"
        "main()\n"
    )
    for handler, code in ((signal.default_int_handler, 130), (signal.SIG_IGN, 0)):
        before = signal.signal(signal.SIGINT, handler)
        try:
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
        finally:
            signal.signal(signal.SIGINT, before)
        assert (done.returncode, done.stderr) == (code, "")


def test_nothing_is_loaded_before_ctrl_c_can_be_handled() -> None:
    """Not even __future__, whose file Python looks for as it does for any other: what it was stopped in would be shown."""
    for name in ("__init__", "__main__"):
        tree = ast.parse((ROOT / "perfmodel" / f"{name}.py").read_text())
        assert not [each for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom)], name


@pytest.mark.processes
def test_without_docstrings_it_says_what_is_left_out() -> None:
    """Help texts and equations are docstrings."""
    command = [sys.executable, "-OO", "-m", "perfmodel", "list", "clusters"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("perfmodel: warning: Python runs without docstrings")


def test_texts_of_files_cannot_steer_a_terminal(run: Any, tmp_path: Path) -> None:
    """An assumption with colours, a title for the window and letters that run backwards is shown with its escapes."""
    path = tmp_path / "run.json"
    said = "\x1b[31mred\x07 \u202eback \x9b2J"
    part = {"model": "llama-3.1-8b", "cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 4096}
    path.write_text(json.dumps(part | {"assumptions": [said], "stages": [{"data_parallel": 8, "global_batch_size": 8}]}))
    for form in ([], ["--csv"], ["--markdown"], ["--json"]):
        done = run("predict", path, *form)
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(done.out + done.err)
    assert "\\x1b[31mred" in run("predict", path).out
    stage = json.loads(run("predict", path, "--json").out)["stages"][0]
    assert said in [*stage["assumptions"], *json.loads(run("predict", path, "--json").out).get("assumptions", [])]
    assert "\\x1b[2J.yaml" in run("predict", "\x1b[2J.yaml").err


def test_no_sentence_is_longer_than_a_person_reads(run: Any, tmp_path: Path) -> None:
    """Whatever a table or a file calls its columns and keys."""
    table = tmp_path / "a.csv"
    table.write_text("x" * 70_000 + "\n1\n")
    keys = tmp_path / "keys.yaml"
    keys.write_text("".join(f"{'k' * 300}{number}: 1\n" for number in range(1000)))
    for arguments in (["validate", table], ["predict", keys], [*RUN, "--set", "y" * 50_000], ["predict", "z" * 50_000]):
        done = run(*arguments)
        assert done.code == 2
        assert len(done.err) < 400


def test_numbers_that_json_cannot_hold_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """By the one writer of JSON."""
    with pytest.raises(Exception, match="a number of the result is not finite"):
        console.emit_json({"time_s": float("inf")}, None)
    assert capsys.readouterr().out == ""
