"""Does a wheel hold all that the commands need under one name, and does it work in a folder full of a user's own modules?"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

from perfmodel.benchmarks.project.site.fences import FENCE

ROOT = Path(__file__).parents[1]
SOURCES = ("perfmodel", "model", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
NEEDED = (
    "perfmodel/py.typed",
    "perfmodel/__main__.py",
    "perfmodel/model/transformer.py",
    "perfmodel/benchmarks/measure/steps/training_step.py",
    "perfmodel/benchmarks/measure/kernels/kernels.py",
    "perfmodel/benchmarks/measure/slurm/kernels.sbatch",
    "perfmodel/benchmarks/fit/machine/calibrated.py",
    "perfmodel/benchmarks/fit/network_points.yaml",
    "perfmodel/data/published_runs.csv",
    "perfmodel/data/runs/nemotron-4-15b.yaml",
    "perfmodel/report/html/assets/page.html",
)
TRAPS = ("cli.py", "model/__init__.py", "benchmarks/__init__.py", "tests/__init__.py")  # names of modules of a user's own
SHADOWS = ("random.py", "torch.py")  # as little to be imported, where PYTHONPATH does not ask for them
SMALL = """
name: a small step
model: {name: small, layers: 1, hidden_size: 64, attention_heads: 2, kv_heads: 2, head_size: 32, ffn_hidden_size: 128,
        activation: squared_relu, norm: layernorm, rotary_fraction: 0.5, vocab_size: 256}
cluster: dgx-h100
stack: reference
precision: bf16
tensor_parallel: 1
micro_batch_size: 1
sequence_length: 64
stages: [{data_parallel: 1, global_batch_size: 1}]
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy without what earlier builds left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, folder], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has perfmodel from the wheel, and all that it depends on from the Python of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with modules that must not be imported."""
    made = tmp_path_factory.mktemp("user")
    for name in TRAPS:
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(f"raise SystemExit('{name} of the user was imported')\n")
    (made / "small.yaml").write_text(SMALL)
    return made


def outcome(python: Path, folder: Path, *arguments: str, path: str | None, codes: Sequence[int] = (0,)) -> str:
    """What a command prints in the folder, started as the console script is."""
    start = "import sys; sys.argv[0] = 'perfmodel'; from perfmodel.commands.app import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {} if path is None else {"PYTHONPATH": path}
    command = [str(python), "-P", "-c", start, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stderr
    return done.stdout


def test_it_installs_one_top_level_name(wheel: Path) -> None:
    """With the reference model, what measures, and the data; without what only the project itself runs."""
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"perfmodel", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert set(NEEDED) <= set(names)
    assert not [name for name in names if name.startswith("perfmodel/benchmarks/project") or "/tests/" in name]


def test_every_module_and_data_file_of_the_checkout_is_in_it(wheel: Path) -> None:
    """A new folder of presets or of modules is not forgotten."""
    known = {".py", ".yaml", ".csv", ".css", ".html", ".js", ".sbatch", ".typed"}
    links = {"perfmodel": ROOT / "perfmodel", "perfmodel/model": ROOT / "model", "perfmodel/benchmarks": ROOT / "benchmarks"}
    here = {f"{name}/{path.relative_to(at)}" for name, at in links.items() for path in at.rglob("*") if path.suffix in known}
    mine = {name for name in here if not name.startswith("perfmodel/benchmarks/project/")}
    assert mine - set(ZipFile(wheel).namelist()) == set()


@pytest.mark.parametrize(
    "arguments",
    [["predict", "nemotron-4-15b"], ["list"], ["calibrate", "--help"], ["measure", "small.yaml", "--dry-run"]],
    ids=lambda arguments: arguments[0],
)
def test_a_users_modules_are_not_imported(python: Path, folder: Path, arguments: list[str]) -> None:
    """Though they have the names of folders of this project, and PYTHONPATH leads to them."""
    assert outcome(python, folder, *arguments, path=".")


def test_python_m_perfmodel_is_the_command_line(python: Path, folder: Path) -> None:
    """In the same folder, which python -m searches first."""
    command = [str(python), "-m", "perfmodel", "predict", "laptop"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == outcome(python, folder, "predict", "laptop", path=None)


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "docs" / "start").glob("*.md")))
def test_the_first_command_of_each_quick_start_works(python: Path, folder: Path, page: str) -> None:
    """As it is typed; `make docs` runs all of them, from the checkout."""
    text = (ROOT / "docs" / "start" / f"{page}.md").read_text(encoding="utf-8")
    for file in [found for found in FENCE.finditer(text) if found["name"] == "file"]:
        (folder / file["words"].strip()).write_text(file["body"])
    first = next(found["body"] for found in FENCE.finditer(text) if found["name"] == "shell").splitlines()[0]
    _, *arguments = shlex.split(first)
    assert outcome(python, folder, *arguments, path=None, codes=(0, 1))


@pytest.mark.ranks
def test_real_steps_run_in_processes_that_import_the_wheel(python: Path, folder: Path) -> None:
    """Not the user's modules either, which `python -m` would import; the record says which perfmodel took it."""
    for name in SHADOWS:
        (folder / name).write_text(f"raise SystemExit('{name} of the user was imported')\n")
    try:
        outcome(python, folder, "measure", "small.yaml", "--device", "cpu", "--seconds", "0.1", path=None)
        assert '"commit": "perfmodel ' in (folder / "record.json").read_text()
        assert outcome(python, folder, "compare", "small.yaml", "record.json", path=None)
    finally:
        for name in SHADOWS:
            (folder / name).unlink()
