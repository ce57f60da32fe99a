"""Does whatever a file holds give a result that can be, or one sentence; never a traceback, a hang, or nonsense?

Here each reader meets some broken files, always the same ones. `make fuzz` breaks others for minutes, and keeps what is wrong
under tests/fuzz/cases/, where it stays as a case once it is mended.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import pytest

from perfmodel.errors import InputError, MachineError, NotSupportedError
from perfmodel.exchange.importers.registry import document_at, importer_of, known_importers
from tests.fuzz import corpus
from tests.fuzz.mutators import mutated
from tests.fuzz.targets import BY_NAME, TARGETS, Target

CASES: Final = Path(__file__).with_name("cases")
NUMBER: Final = 25
MINUTES: Final = float(os.environ.get("FUZZ_MINUTES", "0"))  # for each reader, with other files each time
SLOWEST_S: Final = 10.0
LONGEST_SENTENCE: Final = 10_000  # a word of the file stands in it, and some are thousands of characters long


@contextmanager
def seconds_at_most(most_s: float) -> Iterator[None]:
    """Raise TimeoutError where something takes more time of the CPU."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"still reading after {most_s} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def problem_of(target: Target, path: Path) -> str:
    """What is wrong with what a reader makes of a file; "" where it is a result or a sentence."""
    try:
        with seconds_at_most(SLOWEST_S):
            target.read(path)
    except (InputError, NotSupportedError, MachineError) as error:
        sentence = str(error)
        wrong = [
            name for name, is_so in (("no", not sentence.strip()), ("several lines of", "\n" in sentence.strip())) if is_so
        ]
        long = [] if len(sentence) <= LONGEST_SENTENCE else [f"{len(sentence):,} characters of"]
        return f"{(wrong + long)[0]} sentence: {sentence[:200]!r}" if wrong or long else ""
    except Exception as error:  # noqa: BLE001 - anything else is what this looks for
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def broken(target: Target, folder: Path, chance: random.Random) -> Path:
    """One of the files of a reader, broken, among the others that belong to it."""
    name = chance.choice(sorted(target.files))
    path = folder / name
    path.write_bytes(mutated(chance, target.files[name], [target.files[each] for each in sorted(target.files) if each != name]))
    return path


def laid_out(target: Target, folder: Path) -> None:
    """What the files of a reader name lies beside them."""
    for name, content in target.beside.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_broken_files_give_a_result_or_one_sentence(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each reader: seeded here, for minutes where they are asked for."""
    monkeypatch.chdir(tmp_path)
    laid_out(target, tmp_path)
    found: dict[str, Path] = {}
    for chance in chances(target):
        path = broken(target, tmp_path, chance)
        problem = problem_of(target, path)
        if not problem:
            path.unlink(missing_ok=True)  # readers of logs look at all that lies beside one
        elif problem[:40] not in found:
            found[problem[:40]] = kept(target, path, problem, len(found)) if MINUTES else path
            assert MINUTES, f"{target.name}: {problem}\n{path.read_bytes()[:3000]!r}"
    assert not found, found


def chances(target: Target) -> Iterator[random.Random]:
    """Sources of chance: some, or as many as fit into the time that is given."""
    if not MINUTES:
        yield from (random.Random(f"{target.name} {place}") for place in range(NUMBER))  # noqa: S311 - a test, not a secret
        return
    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        yield random.Random()  # noqa: S311


def kept(target: Target, path: Path, problem: str, number: int) -> Path:
    """A file that is a case from now on; what was wrong with it is printed."""
    stem = f"{target.name}--{number}-{os.getpid()}"
    case = CASES / f"{stem}{''.join(path.suffixes)}"
    case.write_bytes(path.read_bytes())
    print(f"{case.name}: {problem}")  # noqa: T201
    return case


def cases() -> list[Path]:
    """Files that were wrong once."""
    return sorted(each for each in CASES.iterdir() if "--" in each.name)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_was_wrong_once_is_right(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file that a fuzzer found, read by the reader in its name."""
    target = BY_NAME[case.name.partition("--")[0]]
    monkeypatch.chdir(tmp_path)
    laid_out(target, tmp_path)
    (tmp_path / case.name).write_bytes(case.read_bytes())
    assert problem_of(target, tmp_path / case.name) == ""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whole_files_are_read(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a fuzzer breaks what was broken before."""
    monkeypatch.chdir(tmp_path)
    laid_out(target, tmp_path)
    for name, content in target.files.items():
        (tmp_path / name).write_bytes(content)
        try:
            target.read(tmp_path / name)
        except (InputError, NotSupportedError) as error:
            pytest.fail(f"{name}: {error}")


def test_every_importer_has_a_file_to_break(tmp_path: Path) -> None:
    """A format of other software that no corpus has would be read by no fuzzer."""
    fuzzed = set()
    for name, content in {**corpus.CONFIGS_OF_RUNS, **corpus.LOGS, **corpus.MODEL_CONFIGS}.items():
        (tmp_path / name).write_bytes(content)
        importer = importer_of(document_at(tmp_path / name))
        assert importer is not None, name
        fuzzed.add(importer.name)
    assert fuzzed == {each.name for each in known_importers()}
