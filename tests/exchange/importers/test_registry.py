"""Is a file of other software found by its content, and does an importer that cannot work fail loudly?"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.converted_files import converted
from perfmodel.exchange.importers.registry import (
    Document,
    Importer,
    document_at,
    imported,
    importer_of,
    importers_in,
    known_importers,
    read_settings,
)

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_hidden_layers": 2,
    "vocab_size": 1024, "hidden_act": "silu",
}  # fmt: skip


def importer(name: str = "launch script", **changes: Any) -> Importer:
    """One that recognises scripts that call torchrun."""
    usual: dict[str, Any] = {
        "gives": "runs",
        "recognises": lambda document: "torchrun" in document.text,
        "read": lambda document: {"name": document.text.split()[-1]},
    }
    return Importer(name=name, **(usual | changes))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a package of modules with these texts, and gives its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, **modules: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        return name

    return write


DECLARED = (
    "from perfmodel.exchange.importers.registry import Importer\n"
    "IMPORTER = Importer(name='{}', gives='models', recognises=lambda document: False, read=dict)\n"
)


def test_a_module_is_all_that_an_importer_needs(package: Callable[..., str]) -> None:
    """Whatever lies in the package is found, in the order of its names."""
    found = importers_in(package("formats", two=DECLARED.format("b"), one=DECLARED.format("a")))
    assert [each.name for each in found] == ["a", "b"]


def test_a_module_without_an_importer_fails(package: Callable[..., str]) -> None:
    """A forgotten declaration is no format that is silently not read."""
    with pytest.raises(TypeError, match=r"empty\.one declares no IMPORTER"):
        importers_in(package("empty", one=""))


def test_two_importers_of_one_name_fail(package: Callable[..., str]) -> None:
    """Sentences could not tell them apart."""
    with pytest.raises(TypeError, match=r"twice\.two declares a second importer of a"):
        importers_in(package("twice", one=DECLARED.format("a"), two=DECLARED.format("a")))


@pytest.mark.parametrize("part", ["recognises", "read"])
def test_an_importer_without_a_reader_fails(part: str) -> None:
    """Where it is declared, not when somebody has such a file."""
    functions: dict[str, Any] = {part: None}
    with pytest.raises(TypeError, match="needs functions that recognise and read its format"):
        importer("launch script", **functions)


def test_an_importer_of_an_unknown_kind_fails() -> None:
    """What it gives has to be able to stand for a preset."""
    with pytest.raises(TypeError, match="'tokenizers', which is no kind of preset"):
        importer(gives="tokenizers")


def test_content_that_two_importers_recognise_is_refused() -> None:
    """Neither is taken in silence."""
    document = Document(path=Path("run.sh"), text="torchrun train.py", mapping={})
    assert importer_of(document, [importer()]) is not None
    with pytest.raises(InputError, match=r"run\.sh reads as launch script and as job script; keep the keys of one"):
        importer_of(document, [importer(), importer("job script")])


def test_own_words_are_recognised_by_no_importer(tmp_path: Path) -> None:
    """A file with this project's words is read as it is."""
    path = tmp_path / "model.json"
    path.write_text('{"extends": "llama-3.1-8b", "name": "mine"}')
    assert importer_of(document_at(path)) is None
    assert read_settings(path, "models") == {"extends": "llama-3.1-8b", "name": "mine"}


@pytest.mark.parametrize("name", ["config.json", "model.yaml", "config.txt"])
def test_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    """JSON is YAML too: whatever the file is called, it is the same model."""
    path = tmp_path / name
    path.write_text(json.dumps(CONFIG))
    assert read_settings(path, "models")["layers"] == 2


def test_a_mapping_in_a_run_is_recognised_as_a_file_is() -> None:
    """A config that Python or a run file holds."""
    found = imported(Document(path=None, text="", mapping=CONFIG | {"_name_or_path": "meta-llama/Small"}), "models")
    assert found is not None
    assert (found["name"], found["hidden_size"]) == ("Small", 64)
    run = api.load("nemotron-4-15b", {"model": CONFIG, "tensor_parallel": 1})
    assert (run.model.name, run.model.layers) == ("model", 2)


def test_a_file_that_describes_something_else_is_refused(tmp_path: Path) -> None:
    """With what it is and what is needed."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    with pytest.raises(InputError, match=r"is a Hugging Face config\.json, which describes a model; a run is needed"):
        api.predict(str(path))


def test_the_importers_of_the_package_are_found() -> None:
    """The first of them is that of config.json."""
    assert "Hugging Face config.json" in {each.name for each in known_importers()}


@pytest.mark.parametrize("name", ["step.json", "step.pt.trace.json.gz"])
@pytest.mark.parametrize("reads", [api.predict, lambda path: converted(Path(path))], ids=["predict", "convert"])
def test_a_trace_in_the_place_of_a_run_is_told_from_one(tmp_path: Path, name: str, reads: Callable[[str], Any]) -> None:
    """Also where it is compressed, and so no text: the sentence names the command that reads it, not a key of the trace."""
    content = json.dumps({"schemaVersion": 1, "traceEvents": [{"ph": "X", "cat": "kernel", "name": "gemm"}]}).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(InputError, match=rf"{name} is a trace of a profiler.*perfmodel compare RUN FILE reads it"):
        reads(str(path))
