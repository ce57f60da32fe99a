"""What the words of a shell script become when their variables are put in: text with text, never a command that is run.

What no assignment of the script sets stays as it is written, `${NAME}`, so that whoever reads a value sees that it is missing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, TypeAlias

from perfmodel.exchange.translation.shell.words import BARE, DOUBLE, SINGLE, ShellPiece, Token

Value: TypeAlias = str | list[str]
Variables: TypeAlias = MutableMapping[str, Value]
NAME: Final = re.compile(r"\$(?:([A-Za-z_]\w*|[0-9@*#?$!])|\{)")
PARAMETER: Final = re.compile(r"([A-Za-z_]\w*|[0-9@*]+)(\[[^\]]*\])?(?:(:?[-=+?])(.*))?", re.DOTALL)
ALL: Final = re.compile(r"\$\{([A-Za-z_]\w*)\[@\]\}|\$@|\$\{@\}")
ARGUMENTS: Final = ("@", "*", "#")  # what the script itself was called with: nothing
MARK, VALUE, ARRAY = "mark", "value", "array"
LARGEST: Final = 10**15
LONGEST_INDEX: Final = 9  # digits of a place in a list
LONGEST: Final = 200_000  # characters that one word may become
MOST_PIECES: Final = 20_000


def fields_of(word: Token, variables: Variables, *, unset: str | None = None) -> list[str]:
    """The words that one word becomes: `${ARRAY[@]}` and unquoted values with blanks become several.

    `unset` is what stands for a variable that is not set; None leaves it as it is written.
    """
    if _is_no_word(word, variables):
        return []
    fields: list[str] = [""]
    is_quoted = False
    for piece in word.pieces:
        parts = [piece.text] if piece.quoting == SINGLE else _expanded(piece, variables, unset)
        is_quoted = is_quoted or piece.quoting != BARE
        for index, part in enumerate(parts):
            if index:
                fields.append("")
            fields[-1] += part
        if sum(map(len, fields)) > LONGEST:
            break
    return [each for each in fields if each or is_quoted] if len(fields) > 1 or not fields[0] else fields


def _is_no_word(word: Token, variables: Variables) -> bool:
    """Whether a word is an array without elements, or all arguments: none, also inside quotes."""
    found = ALL.fullmatch(word.pieces[0].text) if len(word.pieces) == 1 and word.pieces[0].quoting != SINGLE else None
    return found is not None and (found[1] is None or variables.get(found[1]) == [])


def text_of(word: Token, variables: Variables, *, unset: str | None = None) -> str:
    """The one text that a word is where blanks do not part it, as in an assignment."""
    return " ".join(fields_of(_joined(word), variables, unset=unset))


def _joined(word: Token) -> Token:
    pieces = tuple(ShellPiece(text=each.text, quoting=DOUBLE if each.quoting == BARE else each.quoting) for each in word.pieces)
    return Token(kind="word", pieces=pieces)


def _expanded(piece: ShellPiece, variables: Variables, unset: str | None) -> list[str]:
    """The parts of a piece: several where an array, or blanks in an unquoted value, part it."""
    parts, at, text = [""], 0, piece.text
    while at < len(text) and len(parts) < MOST_PIECES:
        if text[at] == "\\" and piece.quoting == DOUBLE and text[at + 1 : at + 2] in ("$", "`"):
            parts[-1] += text[at + 1]
            at += 2
        elif text[at] == "`":
            end = text.find("`", at + 1)
            end = len(text) if end < 0 else end + 1
            parts[-1] += "$(..)"
            at = end
        elif text[at] == "$" and (found := _expansion(text, at, variables, unset)):
            values, at, kind = found
            if piece.quoting == BARE and kind != MARK:
                values = [word for value in values for word in (value.split() or [""])]
            elif kind != ARRAY:
                values = [" ".join(values)]
            parts[-1] += values[0] if values else ""
            parts += values[1:]
        else:
            parts[-1] += text[at]
            at += 1
    return parts


def _expansion(text: str, at: int, variables: Variables, unset: str | None) -> tuple[list[str], int, str] | None:
    """The values of the expansion at `at`, where it ends, and its kind: a mark is never parted, an array also inside quotes."""
    if text.startswith("$((", at):
        end = text.find("))", at)
        number = arithmetic(text[at + 3 : end], variables) if end > 0 else None
        written = text[at : end + 2] if end > 0 else text[at:]
        return [written if number is None else str(number)], at + len(written), MARK
    if text.startswith("$(", at):
        return ["$(..)"], _closing(text, at + 1, "(", ")"), MARK
    found = NAME.match(text, at)
    if found is None:
        return None
    if found[1]:
        return _values(found[1], "", variables, unset), found.end(), VALUE
    end = _closing(text, at + 1, "{", "}")
    return _parameter(text[at + 2 : end - 1], variables, unset), end, ARRAY if "[@]" in text[at:end] else VALUE


def _closing(text: str, at: int, opening: str, closing: str) -> int:
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] == opening) - (text[place] == closing)
        if depth == 0:
            return place + 1
    return len(text)


def _parameter(inside: str, variables: Variables, unset: str | None) -> list[str]:
    """What `${..}` stands for: a variable, an element, or a default where it is not set."""
    found = PARAMETER.fullmatch(inside)
    if found is None:
        return [f"${{{inside}}}" if unset is None else unset]
    name, index, operator, word = found[1], found[2] or "", found[3] or "", found[4] or ""
    is_set = name in variables and (":" not in operator or variables[name] not in ("", []))
    if operator[-1:] in ("-", "=") and operator and not is_set:
        default = " ".join(_expanded(ShellPiece(text=_unquoted(word), quoting=DOUBLE), variables, unset))
        if operator.endswith("="):
            variables[name] = default
        return [default]
    if operator[-1:] == "+":
        return _expanded(ShellPiece(text=_unquoted(word), quoting=DOUBLE), variables, unset) if is_set else [""]
    return _values(name, index, variables, unset)


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def _values(name: str, index: str, variables: Variables, unset: str | None) -> list[str]:
    if name in ARGUMENTS:
        return ["0"] if name == "#" else []
    if name not in variables:
        return [f"${{{name}}}" if unset is None else unset]
    value = variables[name]
    if index in ("[@]", "[*]"):
        return value if isinstance(value, list) else [value]
    if isinstance(value, list):
        number = int(index[1:-1][:LONGEST_INDEX]) if index[1:-1].isdecimal() else 0
        return [value[number]] if number < len(value) else [""]
    return [value]


def arithmetic(expression: str, variables: Mapping[str, Value]) -> int | None:
    """What an arithmetic expression of whole numbers gives; None where a variable is not set, or it is none.

    >>> arithmetic("$NODES * 8 / TP", {"NODES": "4", "TP": "2"})
    16
    """
    names = re.sub(r"\$\{?([A-Za-z_]\w*)(?::-(\d+))?\}?", lambda found: _number_of(found, variables), expression)
    names = re.sub(r"\b([A-Za-z_]\w*)\b", lambda found: _number_of(found, variables), names)
    if len(names) > 500 or not re.fullmatch(r"[\d\s+\-*/%()]+", names):
        return None
    try:
        value = _evaluated(ast.parse(names.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return value if abs(value) <= LARGEST else None


def _number_of(found: re.Match[str], variables: Mapping[str, Value]) -> str:
    value = variables.get(found[1], found[2] if found.re.groups > 1 and found[2] else None)
    return value.strip() if isinstance(value, str) and value.strip().lstrip("-").isdecimal() else "?"


def _evaluated(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
            return -_evaluated(inner) if isinstance(sign, ast.USub) else _evaluated(inner)
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(operator, _evaluated(left), _evaluated(right))
    raise ValueError


def _combined(operator: ast.operator, left: int, right: int) -> int:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div() | ast.FloorDiv():
            return left // right
        case ast.Mod():
            return left % right
        case ast.Pow() if 0 <= right <= 50 and abs(left) <= 1000:
            return int(left**right)
    raise ValueError


def all_fields(words: Sequence[Token], variables: Variables, *, unset: str | None = None) -> list[str]:
    """The fields of several words, one after the other."""
    return [field for word in words for field in fields_of(word, variables, unset=unset)]
