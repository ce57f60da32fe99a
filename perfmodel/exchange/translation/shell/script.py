"""The commands that a shell script would start, with its variables put in; nothing is run.

Assignments, arrays, defaults, whole-number arithmetic, branches whose conditions follow from the script's own variables, and
the first pass of loops are followed. What only a machine could say (files, other commands) counts as false, and so do variables
that the script does not set; the flags and assignments that are passed over for that are kept as `Script.open_words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from perfmodel.errors import PerfmodelError
from perfmodel.exchange.syntax.documents import read_text
from perfmodel.exchange.translation.shell.expansion import Value, Variables, all_fields, text_of
from perfmodel.exchange.translation.shell.words import BARE, ShellPiece, Token, tokens
from perfmodel.light_dataclass import dataclass

ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)(\+?)=")
DECLARATIONS: Final = ("export", "declare", "local", "readonly", "typeset", "env")
BATCH: Final = re.compile(r"^#(?:SBATCH|PBS|BSUB)\s+(.*)$", re.MULTILINE)
COMPARISONS: Final = {"-eq": "==", "-ne": "!=", "-gt": ">", "-lt": "<", "-ge": ">=", "-le": "<="}
JOINTS: Final = {"&&": "-a", "||": "-o"}  # between [[ and ]]
STARTERS: Final = ("srun", "mpirun", "mpiexec")  # commands whose options say how often a script inside their words is started
UNSET: Final = re.compile(r"\$\{\w+\}|\$\(\.\.\)")  # what is left of a variable or a command that only a machine knows
CHOICE: Final = re.compile(r"--[a-z][\w-]*|[A-Za-z_]\w*(?=\+?=)")  # a flag, or a variable that is assigned
MOST_TOKENS: Final = 100_000
TESTS: Final = ("[", "[[", "test", "true", "false")
DEEPEST: Final = 6  # scripts inside words of scripts


@dataclass(slots=True)
class Script:
    """What is known after a script was read: its variables, and the words of every command in their order."""

    variables: Variables = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    sourced: list[str] = field(default_factory=list)  # other files that it reads, and that were not found
    open_words: list[str] = field(default_factory=list)  # flags and variables under conditions that the script does not settle
    folder: Path | None = None  # where files that it reads may be


def read_script(text: str, variables: Variables | None = None, *, depth: int = 0, folder: Path | None = None) -> Script:
    """The commands of a script as text; files that it sources are read, as text too, where they lie in `folder`."""
    script = Script(variables={} if variables is None else variables, folder=folder)
    _Reader(script, tokens(text)[:MOST_TOKENS], depth).read()
    return script


def batch_options(text: str) -> list[str]:
    """The options of a job in its #SBATCH lines, one word each."""
    return [word for line in BATCH.findall(text) for word in line.partition(" #")[0].split()]


class _Reader:
    """Goes through the tokens of a script from top to bottom."""

    def __init__(self, script: Script, given: Sequence[Token], depth: int) -> None:
        self.script, self.tokens, self.depth, self.at = script, given, depth, 0
        self.status: bool | None = True  # whether the last command says yes; None where only a machine could say it

    def read(self) -> None:
        while self.at < len(self.tokens):
            self._statement(runs=True)

    def _statement(self, *, runs: bool) -> None:
        """One command or compound command; without `runs` it is only passed over."""
        token = self.tokens[self.at]
        word = _keyword(token)
        if word == "if":
            self._if(runs=runs)
        elif word == "case":
            self._case(runs=runs)
        elif word in ("for", "while", "until"):
            self._loop(word, runs=runs)
        elif token.kind == "operator":
            self.at += 1
            if token.text in JOINTS:
                self._joint(token.text, runs=runs)
            elif token.text == "(" and self._is_operator("("):
                self._arithmetic()
        elif token.kind == "here":
            self.at += 1
            if runs and self.depth < DEEPEST:
                self._nested(token.text)
        else:
            command = self._command()
            if runs:
                self.status = _says(command, self.script.variables)
                self._follow(command)

    def _joint(self, joint: str, *, runs: bool) -> None:
        """What follows `&&` or `||`: it runs where the last command said yes, or no."""
        while self.at < len(self.tokens) and self.tokens[self.at].text == "\n":
            self.at += 1
        goes = self.status is True if joint == "&&" else self.status is False
        if self.at >= len(self.tokens) or (runs and goes):
            return
        start = self.at
        self._statement(runs=False)
        if runs and self.status is None:
            self._leave_open(start, self.at)

    def _is_operator(self, text: str) -> bool:
        """Whether an operator stands here."""
        return self.at < len(self.tokens) and self.tokens[self.at].kind == "operator" and self.tokens[self.at].text == text

    def _arithmetic(self) -> None:
        """Pass over `((..))`, whose truth is not worked out."""
        while self.at < len(self.tokens) and not self._is_operator(")") and not self._is_operator("\n"):
            self.at += 1
        while self._is_operator(")"):
            self.at += 1
        self.status = None

    def _leave_open(self, start: int, end: int) -> None:
        """Keep the flags and the assigned variables among tokens that are passed over."""
        for token in self.tokens[start:end]:
            words = (token, *token.words)
            if token.kind == "array":
                self.script.open_words.append(token.text)
            for text in (piece.text for word in words for piece in word.pieces):
                self.script.open_words += CHOICE.findall(text)

    def _command(self) -> list[Token]:
        """The words and arrays up to the next operator."""
        found: list[Token] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            is_inside = bool(found) and _keyword(found[0]) == "[[" and _keyword(found[-1]) != "]]"
            if is_inside and token.text in JOINTS:
                token = Token(kind="word", pieces=(ShellPiece(text=JOINTS[token.text], quoting=BARE),))
            if token.kind not in ("word", "array"):
                break
            found.append(token)
            self.at += 1
        return found

    def _block(self, ends: Sequence[str], *, runs: bool) -> str:
        """Statements up to one of the keywords `ends`, which is passed and given."""
        while self.at < len(self.tokens):
            word = _keyword(self.tokens[self.at])
            if word in ends:
                self.at += 1
                return word
            self._statement(runs=runs)
        return ""

    def _condition(self, end: str) -> bool | None:
        """Whether the commands before `end` say yes; None where only a machine could say it."""
        value: bool | None = True
        joint = "&&"
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if _keyword(token) == end:
                self.at += 1
                break
            if token.kind == "operator":
                joint = token.text if token.text in ("&&", "||") else "&&"
                self.at += 1
                continue
            if token.kind == "here":
                self.at += 1
                continue
            value = _joined(value, joint, _settled(self._command(), self.script.variables))
        return value

    def _if(self, *, runs: bool) -> None:
        self.at += 1
        taken = is_open = False
        holds = self._condition("then")
        while True:
            takes = runs and holds is True and not taken
            is_open = is_open or holds is None
            start = self.at
            end = self._block(("elif", "else", "fi"), runs=takes)
            if runs and is_open and not takes:
                self._leave_open(start, self.at)
            taken = taken or takes
            if end == "elif":
                holds = self._condition("then")
            elif end == "else":
                holds = True
            else:
                return

    def _case(self, *, runs: bool) -> None:
        """`case WORD in PATTERN) .. ;; esac`: the first pattern that fits."""
        self.at += 1
        subject = text_of(self.tokens[self.at], self.script.variables, unset="") if self.at < len(self.tokens) else ""
        taken = not runs
        self._skip_to("in")
        while self.at < len(self.tokens) and _keyword(self.tokens[self.at]) != "esac":
            patterns = self._patterns()
            fits = not taken and any(fnmatchcase(subject, each) for each in patterns)
            taken = taken or fits
            while self.at < len(self.tokens) and _keyword(self.tokens[self.at]) != "esac":
                if self.tokens[self.at].text == ";;" and self.tokens[self.at].kind == "operator":
                    self.at += 1
                    break
                self._statement(runs=fits)
        self.at += 1

    def _patterns(self) -> list[str]:
        found: list[str] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "operator" and token.text == ")":
                self.at += 1
                return found
            if _keyword(token) == "esac":
                return found
            if token.kind == "word":
                found.append(text_of(token, self.script.variables, unset=""))
            self.at += 1
        return found

    def _skip_to(self, word: str) -> None:
        while self.at < len(self.tokens) and _keyword(self.tokens[self.at]) != word:
            self.at += 1
        self.at += 1

    def _loop(self, kind: str, *, runs: bool) -> None:
        """The body once: with the first value of `for`, or where a condition holds."""
        self.at += 1
        if kind == "for":
            head = self._command()
            values = all_fields(head[2:], self.script.variables) if len(head) > 2 else []
            if runs and head and values:
                self.script.variables[_keyword(head[0])] = values[0]
            self._skip_to("do")
            holds = bool(values)
        else:
            holds = self._condition("do") is (kind == "while")  # what is not known stops both
        self._block(("done",), runs=runs and holds)

    def _follow(self, command: list[Token]) -> None:
        """Take over what a command assigns, and keep its words."""
        variables, script = self.script.variables, self.script
        words = list(command)
        if words and _keyword(words[0]) in DECLARATIONS:
            words = [each for each in words[1:] if not _keyword(each).startswith("-")]
            rest = [each for each in words if not self._assigned(each)]
            words = rest if _keyword(command[0]) == "env" else []
        while words and self._assigned(words[0]):
            words.pop(0)
        fields = all_fields([each for each in words if each.kind == "word"], variables)
        if not fields:
            return
        if fields[0] in ("source", ".") and len(fields) > 1:
            self._source(fields[1])
            return
        script.commands.append(fields)
        for place, inner in enumerate(fields[1:], 1) if self.depth < DEEPEST else ():
            if re.search(r"\s-", inner):
                self._nested(inner, before=fields[:place] if fields[0] in STARTERS else ())

    def _source(self, name: str) -> None:
        """Read a file that the script reads, or keep its name."""
        folder = self.script.folder
        try:
            path = None if folder is None else folder / name
            text = read_text(path) if path is not None and path.is_file() and self.depth < DEEPEST else None
        except (PerfmodelError, OSError, ValueError):
            text = None
        if text is None:
            self.script.sourced.append(name)
        else:
            self._nested(text)

    def _nested(self, text: str, before: Sequence[str] = ()) -> None:
        """Read a script inside a word; `before` are the words of what starts it."""
        script = read_script(text, self.script.variables, depth=self.depth + 1, folder=self.script.folder)
        self.script.commands += [[*before, *each] for each in script.commands]
        self.script.sourced += script.sourced
        self.script.open_words += script.open_words

    def _assigned(self, token: Token) -> bool:
        """Whether a word assigns a variable, which then has its value."""
        variables = self.script.variables
        if token.kind == "array":
            held = variables.get(token.text, []) if token.appends else []
            variables[token.text] = [*(held if isinstance(held, list) else [held]), *all_fields(token.words, variables)]
            return True
        if not token.pieces or token.pieces[0].quoting != BARE or not (found := ASSIGNMENT.match(token.pieces[0].text)):
            return False
        first = ShellPiece(text=token.pieces[0].text[found.end() :], quoting=BARE)
        value = text_of(Token(kind="word", pieces=(first, *token.pieces[1:])), variables)
        variables[found[1]] = _appended(variables.get(found[1], ""), value) if found[2] else value
        return True


def _appended(held: Value, value: str) -> Value:
    return [f"{held[0]}{value}", *held[1:]] if isinstance(held, list) and held else f"{held or ''}{value}"


def _keyword(token: Token) -> str:
    """A bare word as it is written; empty for anything else."""
    is_bare = token.kind == "word" and all(each.quoting == BARE for each in token.pieces)
    return "".join(each.text for each in token.pieces) if is_bare else ""


def _says(command: Sequence[Token], variables: Variables) -> bool | None:
    """Whether a command succeeds: a test by what it says, any other always."""
    words = [each for each in command if _keyword(each) != "!"]
    return _settled(command, variables) if words and _keyword(words[0]) in TESTS else True


def _settled(command: Sequence[Token], variables: Variables) -> bool | None:
    """What a test says by the script alone; None where a variable of it is set elsewhere, and that keeps it from holding."""
    value = truth(command, variables)
    is_open = any(UNSET.search(each) for each in all_fields([word for word in command if word.kind == "word"], variables))
    return None if is_open and not value else value


def truth(command: Sequence[Token], variables: Variables) -> bool | None:
    """What `[ .. ]`, `[[ .. ]]`, true or false say; None where only a machine could say it."""
    words = [text_of(each, variables, unset="") for each in command if each.kind == "word"]
    negated = bool(words) and words[0] == "!"
    words = words[1:] if negated else words
    if not words or words[0] not in TESTS:
        return None
    value = {"true": True, "false": False}.get(words[0])
    if value is None:
        value = _tested(words[1:-1] if words[0] != "test" else words[1:])
    return value if value is None or not negated else not value


def _tested(words: list[str]) -> bool | None:
    """Comparisons between brackets, joined by -a and -o."""
    value: bool | None = True
    joint = "&&"
    for part, following in _parts(words):
        value = _joined(value, joint, _compared(part))
        joint = following
    return value


def _parts(words: list[str]) -> Iterator[tuple[list[str], str]]:
    part: list[str] = []
    for word in words:
        if word in ("-a", "-o") and part:
            yield part, "&&" if word == "-a" else "||"
            part = []
        else:
            part.append(word)
    yield part, ""


def _compared(words: list[str]) -> bool | None:
    match words:
        case ["!", *rest]:
            inner = _compared(rest)
            return None if inner is None else not inner
        case [word] | ["-n", word]:
            return bool(word)
        case ["-z", word]:
            return not word
        case [left, "=" | "==" | "!=" as operator, right]:
            return fnmatchcase(left, right) is (operator != "!=")
        case [left, operator, right] if operator in COMPARISONS:
            return _ordered(left, COMPARISONS[operator], right)
    return None


def _ordered(left: str, operator: str, right: str) -> bool | None:
    try:
        one, other = int(left), int(right)
    except ValueError:
        return None
    return {
        "==": one == other, "!=": one != other, ">": one > other, "<": one < other, ">=": one >= other, "<=": one <= other,
    }[operator]  # fmt: skip


def _joined(left: bool | None, operator: str, right: bool | None) -> bool | None:
    if operator == "||":
        return True if left or right else (None if None in (left, right) else False)
    return False if left is False or right is False else (None if None in (left, right) else True)
