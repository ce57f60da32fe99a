"""Which importer reads this file: each format of other software is recognised by what the file says, not by its name.

An importer is a module of this package, or of a room in it, with one declaration, and nothing else has to name it:

    IMPORTER: Final = Importer(
        name="Hugging Face config.json",  # what the format is called in sentences
        gives="models",                   # the kind of preset that it may stand for
        recognises=_is_config,            # whether a Document has this format: cheap, and true for no other format
        read=_model,                      # the Document as the mapping that a preset of that kind holds
        assumes=_assumptions,             # sentences on what is read otherwise than the Document has it; may be left out
    )

One of runs is `run_importer(name=.., recognises=.., convert=..)`, which keeps what is assumed, ignored and refused; one of logs
of runs is `log_importer`, with the same. A content that two importers recognise is refused, and so is an importer that gives no
kind of preset or has no reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.syntax.annotations import TABLE
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, head_of, mapping_in, parse_text, read_text
from perfmodel.exchange.translation.conversion import Conversion, run_mapping
from perfmodel.light_dataclass import dataclass, replace

DESCRIBED: Final[Mapping[str, str]] = {  # kind of preset: what a file of it describes
    "runs": "a run",
    "models": "a model",
    "clusters": "a cluster",
    "gpus": "a GPU",
    "kernels": "kernels",
    "links": "a link",
    "collectives": "collectives",
    "stacks": "a software stack",
    "economics": "economic terms",
    "evidence": "what measured runs say",
    "engines": "a serving engine",
    "serving": "kernels of serving",
}
WORDS_OF_ALL: Final = frozenset({"extends", "assumptions", TABLE})  # keys that files of any kind may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file as an importer sees it, or a mapping that stands in its place in a run file.

    `mapping` is what the text says as YAML, TOML or JSON, empty where it says no mapping. For a mapping that is in no file of
    its own, `path` is None and `text` is empty. Of a file that is no text, or too large for one, as logs may be, `text` is the
    head, and `problem` says what it cannot be.
    """

    path: Path | None
    text: str
    mapping: Mapping[str, Any]
    problem: InputError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """A format of other software: what it is called, what it gives, how it is recognised and how it is read.

    `assumes` gives sentences on what is read otherwise than a document has it, by the key of the preset that would change that.
    """

    name: str
    gives: str  # a key of DESCRIBED
    recognises: Callable[[Document], bool]
    read: Callable[[Document], dict[str, Any]]
    assumes: Callable[[Document], Mapping[str, str]] = lambda _: {}
    convert: Callable[[Document], Conversion] | None = None  # of runs and logs: with what is assumed, ignored and refused
    measures: bool = False  # whether it is of logs: of what runs did, whether or not they say what runs they are

    def __post_init__(self) -> None:
        if self.gives not in DESCRIBED:
            raise TypeError(f"the importer of {self.name} gives {self.gives!r}, which is no kind of preset")
        if not all(map(callable, (self.recognises, self.read))):
            raise TypeError(f"the importer of {self.name} needs functions that recognise and read its format")


def run_importer(*, name: str, recognises: Callable[[Document], bool], convert: Callable[[Document], Conversion]) -> Importer:
    """The importer of a format that describes runs."""
    return Importer(
        name=name, gives="runs", recognises=recognises, read=lambda document: run_mapping(convert(document)), convert=convert
    )


def log_importer(*, name: str, recognises: Callable[[Document], bool], convert: Callable[[Document], Conversion]) -> Importer:
    """The importer of a format of logs of runs."""
    return replace(run_importer(name=name, recognises=recognises, convert=convert), measures=True)


def _modules(package: str) -> Iterator[str]:
    """The names of all modules of a package and of the rooms in it, but for this one."""
    for entry in iter_modules(import_module(package).__path__, f"{package}."):
        if entry.ispkg:
            yield from _modules(entry.name)
        elif entry.name != __name__:
            yield entry.name


def importers_in(package: str) -> tuple[Importer, ...]:
    """The importers of all modules of a package but this one. Errors: TypeError for a module that declares none."""
    found: dict[str, Importer] = {}
    for module in _modules(package):
        importer = getattr(import_module(module), "IMPORTER", None)
        if not isinstance(importer, Importer):
            raise TypeError(f"{module} declares no IMPORTER; write IMPORTER = Importer(..)")
        if importer.name in found:
            raise TypeError(f"{module} declares a second importer of {importer.name}")
        found[importer.name] = importer
    return tuple(found.values())


@cache
def known_importers() -> tuple[Importer, ...]:
    """The importers of this package."""
    return importers_in(__package__ or __name__.rpartition(".")[0])


def importer_of(document: Document, importers: Sequence[Importer] | None = None) -> Importer | None:
    """The importer that recognises a document; None where the document has this project's own words.

    Errors: InputError where several importers recognise it.
    """
    claims = [each for each in (known_importers() if importers is None else importers) if each.recognises(document)]
    if len(claims) > 1:
        raise InputError(f"{_called(document)} reads as {' and as '.join(each.name for each in claims)}; keep the keys of one")
    return claims[0] if claims else None


def document_at(path: Path) -> Document:
    """The file at `path` for importers to recognise. Errors: InputError for a file that cannot be read."""
    try:
        text = read_text(path)
    except InputError as problem:
        head = head_of(path)
        if head is None:
            raise
        return Document(path=path, text=head, mapping={}, problem=problem)
    return document_of(text, path=path)


def document_of(text: str, *, path: Path | None = None) -> Document:
    """A text for importers to recognise, as that of the file at `path` where there is one."""
    try:
        value = parse_text(text, suffix=path.suffix.lower() if path else ".yaml")
    except InputError:
        value = None
    return Document(path=path, text=text, mapping=value if isinstance(value, dict) else {})


def has_own_words(mapping: Mapping[str, Any], spec: type) -> bool:
    """Whether a mapping has keys, and all are those of `spec` in this project's files: no importer needs to be loaded.

    >>> from perfmodel.spec.models.model import TransformerModel
    >>> has_own_words({"extends": "llama-3.1-8b", "layers": 2}, TransformerModel)
    True
    """
    known = getattr(spec, "__dataclass_fields__", {})
    return bool(mapping) and all(key in known or key in WORDS_OF_ALL for key in mapping)


def imported(document: Document, kind: str, *, spec: type | None = None) -> dict[str, Any] | None:
    """What a document of other software says, as the mapping of a preset of `kind`; None where no importer recognises it.

    Importers are not asked about a document that has nothing but the words of `spec`, where one is given.

    Errors: InputError for a document that describes another kind of thing; what the importer raises, under the file's path.
    """
    if spec is not None and has_own_words(document.mapping, spec):
        return None
    importer = importer_of(document)
    if importer is None:
        return None
    if importer.gives != kind:
        describes = f"is a {importer.name}, which describes {DESCRIBED[importer.gives]}"
        raise InputError(f"{_called(document)} {describes}; {DESCRIBED[kind]} is needed here")
    try:
        return importer.read(document)
    except PerfmodelError as error:
        raise error.under(str(document.path or "")) from None


def assumed(value: Any) -> Mapping[str, str]:
    """What was assumed where a file of other software, or its content, stands for a part of a run: a sentence by key."""
    if isinstance(value, Mapping) and "extends" in value:
        return assumed(value["extends"])
    if isinstance(value, str) and Path(value).suffix.lower() in FILE_SUFFIXES:
        document = document_at(Path(value))
    elif isinstance(value, Mapping):
        document = Document(path=None, text="", mapping=value)
    else:
        return {}
    importer = importer_of(document)
    return {} if importer is None else importer.assumes(document)


def read_settings(path: Path, kind: str, *, spec: type | None = None, needs: str = "settings (key: value)") -> dict[str, Any]:
    """The file at `path` as the mapping of a preset of `kind`, whether it has the words of `spec` or those of other software.

    Errors: InputError, one sentence that names the file.
    """
    document = document_at(path)
    found = imported(document, kind, spec=spec)
    if found is None:
        check_is_no_measurement(document)
    if found is None and document.problem is not None:
        raise document.problem
    return mapping_in(document.text, path, needs=needs) if found is None else found


def conversion_at(path: Path) -> Conversion | None:
    """What becomes of the file at `path`, a run or a log of other software; None for any other file.

    Errors: InputError for a file that cannot be read; what the importer raises, under the file's path.
    """
    document = document_at(path)
    importer = importer_of(document)
    if importer is None and document.problem is not None:
        check_is_no_measurement(document)
        raise document.problem
    if importer is None or importer.convert is None:
        return None
    try:
        return importer.convert(document)
    except PerfmodelError as error:
        raise error.under(str(path)) from None


def check_is_no_measurement(document: Document) -> None:
    """Raise InputError for what nccl-tests printed and for a trace of a profiler, with the command that reads it."""
    from perfmodel.exchange.measured.nccl_tests import is_nccl_tests  # with its patterns, of no use to a run that is read
    from perfmodel.exchange.measured.trace_files import is_trace

    if document.path is not None and is_trace(document.path):
        raise InputError(f"{document.path} is a trace of a profiler, which is no run; perfmodel compare RUN FILE reads it")
    if document.text and is_nccl_tests(document.text):
        reads = "perfmodel calibrate --from-nccl-tests FILE --cluster NAME reads it"
        raise InputError(f"{_called(document)} is the output of nccl-tests, which is no run; {reads}")


def _called(document: Document) -> str:
    return "this mapping" if document.path is None else str(document.path)
