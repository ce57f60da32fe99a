"""Reports as HTML: what a terminal shows as titles, sentences, lists and tables, and figures between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from perfmodel.report.text.terminal import TitledBlock

# what HTML forbids, what nobody sees, and what turns the text after it round; a tab and the end of a line are none of these
HIDDEN: Final = (*range(9), *range(11, 32), *range(127, 160), 0x200B, *range(0x200E, 0x2010), *range(0x202A, 0x202F))
REPLACED: Final = dict.fromkeys((*HIDDEN, *range(0x2060, 0x2070), 0xFEFF), "\N{REPLACEMENT CHARACTER}")
CLASSES: Final = {"red": "bad", "green": "good", "yellow": "doubt", "dim": "quiet", "bold": "strong"}
LONG_WORD: Final = re.compile(r"\S{16,}")
BREAK: Final = re.compile(r"(?<=[._/])(?=\w)")  # where a long key path, file or address may go on in the next line
PERCENT: Final = re.compile(r"(?<=\d) %")
BAR: Final = re.compile(r"[#+-]*")


def escaped(text: str) -> str:
    """Any text as the content of an element or the value of an attribute.

    >>> escaped('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return escape(text.translate(REPLACED))


def with_whole_percents(words: str) -> str:
    """No line ends between a number and its percent sign."""
    return PERCENT.sub("\N{NO-BREAK SPACE}%", words)


def as_html(content: RenderableType, *, level: int = 3) -> str:
    """A report as HTML; its titles are headings of `level`.

    >>> from perfmodel.report.text.terminal import titled
    >>> print(as_html(titled("Where <it> goes", "35.9 ms")))
    <h3>Where &lt;it&gt; goes</h3>
    <p>35.9 ms</p>
    """
    return "\n".join(_blocks(content, level))


def figure_html(name: str, svg: str, *, caption: str = "", note: str = "") -> str:
    """A figure, already SVG, with what it shows above and how it is to be read below."""
    above = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    below = f'<p class="note">{escaped(note)}</p>' if note else ""
    return f'<figure id="figure-{escaped(name)}">{above}{svg}{below}</figure>'


def beside(figure: str, content: str) -> str:
    """A figure with what is said of it to its right, or below where there is no room."""
    return f'{figure}\n<div class="beside">\n{content}\n</div>' if figure and content else figure or content


def as_table(content: str) -> str:
    """The table behind a picture, folded: what it says is to be seen already."""
    return folded("As a table", content) if content else ""


def folded(summary: str, content: str) -> str:
    """What is long, closed until somebody wants it."""
    return f"<details><summary>{escaped(summary)}</summary>\n{content}\n</details>"


def _blocks(content: RenderableType, level: int) -> Iterator[str]:
    match content:
        case Group():
            for part in content.renderables:
                yield from _blocks(part, level)
        case TitledBlock():
            yield f"<h{level}>{escaped(content.title)}</h{level}>"
            yield from _blocks(content.content, level + 1)
        case Padding():
            yield f"<pre>{_inline(content.renderable)}</pre>"
        case Table(show_header=True):
            yield _table(content)
        case Table():
            yield _list(content)
        case Text():
            kind = _class(content.style)
            yield from (f"<p{kind}>{_inline(line)}</p>" for line in content.split() if line.plain.strip())
        case _:
            yield f"<p>{escaped(str(content))}</p>"


def _class(style: str | Style, *more: str) -> str:
    """The attribute for the words of a style, and for more classes."""
    names = [*more, *(CLASSES[word] for word in str(style).split() if word in CLASSES)]
    return f' class="{" ".join(names)}"' if names else ""


def _inline(content: RenderableType | None) -> str:
    """Words with their styles, no block."""
    if not isinstance(content, Text):
        return escaped("" if content is None else str(content))
    ends = sorted({0, len(content.plain), *(end for span in content.spans for end in (span.start, span.end))})
    pieces = []
    for start, end in pairwise(ends):
        words = with_whole_percents(escaped(content.plain[start:end]))
        kinds = "".join(_class(span.style) for span in content.spans if span.start <= start and end <= span.end)
        pieces.append(f"<span{kinds}>{words}</span>" if kinds else words)
    return "".join(pieces)


def _table(table: Table) -> str:
    """Head, body and, after its first rule, foot: what is added up is not sorted with the rest."""
    shown = [column for column in table.columns if not _is_bar(str(column.header), [*column.cells])]
    rows = [*zip(*([*column.cells] for column in shown), strict=True)]
    numeric = [column.justify == "right" for column in shown]
    ends = [place + 1 for place, row in enumerate(table.rows) if row.end_section and place + 1 < len(table.rows)]
    first = ends[0] if ends else len(rows)
    head = "".join(_head(str(column.header), right) for column, right in zip(shown, numeric, strict=True))
    body = "\n".join(_row(row, numeric) for row in rows[:first])
    foot = "\n".join(_row(row, numeric) for row in rows[first:] if any(map(str, row)))
    parts = [f"<thead><tr>{head}</tr></thead>", f"<tbody>\n{body}\n</tbody>", *([f"<tfoot>\n{foot}\n</tfoot>"] if foot else [])]
    return '<div class="wide" tabindex="0"><table>\n' + "\n".join(parts) + "\n</table></div>"


def _is_bar(header: str, cells: Sequence[RenderableType]) -> bool:
    """Whether a column draws with letters what a figure beside the table shows."""
    return not header and all(BAR.fullmatch(_plain(cell)) for cell in cells)


def _head(header: str, right: bool) -> str:
    kind = ' class="number"' if right else ""
    return f'<th scope="col"{kind}>{escaped(header)}</th>' if header else f"<td{kind}></td>"


def _row(cells: Sequence[RenderableType], numeric: Sequence[bool]) -> str:
    content = [_cell(cell, right, not place) for place, (cell, right) in enumerate(zip(cells, numeric, strict=True))]
    return f"<tr>{''.join(content)}</tr>"


def _cell(cell: RenderableType, right: bool, first: bool) -> str:
    """One cell; lines after its first are smaller, and the label of a row is its heading."""
    content = _plain(cell)
    style = cell.style if isinstance(cell, Text) else ""
    kinds = [*(["number"] if right else []), *(["inner"] if content.startswith("  ") else [])]
    line, *more = (_breakable(each) for each in content.split("\n"))
    text = line + "".join(f"<br><small>{each.strip()}</small>" for each in more)
    if isinstance(style, Style) and (style.link or "").startswith("#"):  # a place on the page; no page leads elsewhere
        text = f'<a href="{escaped(style.link or "")}">{text}</a>'
    kind = _class(style, *kinds)
    return f'<th scope="row"{kind}>{text}</th>' if first and not right else f"<td{kind}>{text}</td>"


def _breakable(line: str) -> str:
    """Escaped, with places where long words may break."""
    pieces, last = [], 0
    for word in LONG_WORD.finditer(line):
        pieces += [escaped(line[last : word.start()]), "<wbr>".join(escaped(part) for part in BREAK.split(word[0]))]
        last = word.end()
    return "".join([*pieces, escaped(line[last:])])


def _list(table: Table) -> str:
    """Lines of a list: the first cell of each is a dash, or what the others are about."""
    lines = []
    for first, *others in zip(*([*column.cells] for column in table.columns), strict=True):
        words, about = " ".join(_breakable(_plain(cell)) for cell in others), _plain(first)
        lines.append(f"<li>{words}</li>" if about in ("", "-") else f"<li><b>{escaped(about)}</b> {words}</li>")
    return "<ul>\n" + "\n".join(lines) + "\n</ul>"


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
