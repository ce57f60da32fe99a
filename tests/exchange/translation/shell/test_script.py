"""Are shell scripts followed as text, as far as text says it, and never run?"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from perfmodel.exchange.translation.shell.script import batch_options, read_script


def last(text: str) -> list[str]:
    """The words of the last command."""
    return read_script(text).commands[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nrun $A ${A}2 \"$A 3\" '$A'", ["run", "1", "12", "1 3", "$A"]),
        ('A=()\nrun --x "${A[@]}" "$@" "${@}" "$A"', ["run", "--x", ""]),
        ("run one \\\n  two # three", ["run", "one", "two"]),
        ("A=(x 'y z')\nA+=(w)\nrun ${A[@]}", ["run", "x", "y", "z", "w"]),
        ("A=(x 'y z')\nrun \"${A[@]}\" ${A[1]}", ["run", "x", "y z", "y", "z"]),
        ("A='x y'\nrun $A \"$A\"", ["run", "x", "y", "x y"]),
        ("run ${N:-8} ${M:=4} $M ${N:+set}", ["run", "8", "4", "4"]),
        ("N=4\nrun $((N * 2 + ${N} / 3)) $((X * 2))", ["run", "9", "$((X * 2))"]),
        ("run $(hostname) `date` $UNSET", ["run", "$(..)", "$(..)", "${UNSET}"]),
        ("run a > log 2>&1 | tee b; run c", ["run", "c"]),
        ("export A=1 B=2\nrun $A$B", ["run", "12"]),
        ("A='--x 1'\nA=\"$A --y 2\"\nA+=' --z'\nrun $A", ["run", "--x", "1", "--y", "2", "--z"]),
        ("for i in 3 4; do run $i; done", ["run", "3"]),
        ("A=b\ncase $A in a) run 1;; b|c) run 2;; *) run 3;; esac", ["run", "2"]),
        ("f() {\n run in\n}\nf", ["f"]),
    ],
)
def test_words_are_what_a_shell_makes_of_them(text: str, words: list[str]) -> None:
    """Variables, arrays, defaults, arithmetic; what a machine would have to say stays as a mark."""
    assert last(text) == words


@pytest.mark.parametrize(
    ("condition", "branch"),
    [
        ('[ "$A" = yes ]', "then"),
        ('[ "$A" != yes ]', "else"),
        ('[[ -z "$UNSET" && $N -gt 3 ]]', "then"),
        ('[[ -n "$UNSET" ]] || [ "$N" -eq 4 ]', "then"),
        ("[ ! -f missing ]", "else"),
        ("grep x y", "else"),
        ('! [ "$A" = no ]', "then"),
    ],
)
def test_branches_follow_the_variables_of_the_script(condition: str, branch: str) -> None:
    """Files and other commands count as false."""
    assert last(f"A=yes\nN=4\nif {condition}; then run then\nelse run else\nfi") == ["run", branch]


def test_scripts_inside_words_are_read() -> None:
    """What srun hands to bash -c, and a here-document."""
    commands = read_script("A=1\nsrun bash -c 'go --x $A'\ncat <<EOF > f\ngo --y $A\nEOF\n").commands
    assert ["srun", "bash", "-c", "go", "--x", "1"] in commands  # the ranks are srun's
    assert ["go", "--y", "1"] in commands


def test_a_sourced_file_is_read_where_it_is(tmp_path: Path) -> None:
    """As text too; one that is not there is kept by its name."""
    (tmp_path / "config.sh").write_text("A=1\nsource ./config.sh\n")
    script = read_script("source ./config.sh\n. other.sh\ngo $A", folder=tmp_path)
    assert (script.commands, script.sourced[-1]) == ([["go", "1"]], "other.sh")


def test_nothing_is_run(tmp_path: Path) -> None:
    """Neither commands nor what stands in their place in a word."""
    mark = tmp_path / "mark"
    read_script(f"touch {mark}\nA=$(touch {mark})\n: `touch {mark}`\ncat <(touch {mark})\neval 'touch {mark}'")
    assert not mark.exists()


def test_options_of_a_job_are_read_from_its_comments() -> None:
    """As sbatch reads them."""
    assert batch_options("#SBATCH --nodes=2 -n 16 # all\n#SBATCH --exclusive") == ["--nodes=2", "-n", "16", "--exclusive"]


@pytest.mark.parametrize("seed", range(40))
def test_a_broken_script_ends(seed: int) -> None:
    """Whatever letters are hit."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    letters = list(
        'A=(a b)\nif [ x = y ]; then B="$A ${C:-d}"; fi\ncase $A in a) x;; esac\ncat <<E\n$((1+2))\nE\nrun $B `c`\n' * 3
    )
    for _ in range(12):
        letters[chance.randrange(len(letters))] = chance.choice("\"'`$(){}[]\\\n#&|;<> aX=+")
    read_script("".join(letters))
