"""Do logs stand in tables of measured runs with the run that is in them or beside them, and is each that cannot be named?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.measured_rows import MeasuredRun, MeasuredTable
from perfmodel.exchange.tables.logged_runs import GivenBeside
from perfmodel.exchange.tables.measured_files import read_measured_files
from tests.commands.measured.test_validate_command import published_rows, write_rows
from tests.exchange.importers.logs.test_megatron_log import BLOCK, line
from tests.exchange.importers.logs.test_other_logs import titan
from tests.exchange.importers.scripts import LLAMA, SMALL

ON_H100 = GivenBeside(cluster="dgx-h100")
STEPS = "\n".join(line(number, 3000.0, 128) for number in range(1, 41)) + "\n"
DEEPSPEED = "[Rank 0] step=1, skipped=0\n" + "\n".join(
    f"epoch=0/micro_step={step}/global_step={step}, RunningAvgSamplesPerSec=8.0, CurrSamplesPerSec=8.0, MemAllocated=1.0GB, "
    "MaxMemAllocated=2.0GB"
    for step in range(1, 41)
)


def written(folder: Path, **files: str) -> Path:
    """A folder with these files; of their names, `_` stands for a dot."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def only(table: MeasuredTable[MeasuredRun]) -> MeasuredRun:
    """The only run of a table."""
    (row,) = table.rows
    return row


def reasons(table: MeasuredTable[MeasuredRun]) -> dict[str, str]:
    """Why files are left out, by their names."""
    return {row.file: row.reason.removeprefix(f"{row.file}: ") for row in table.unread}


def test_a_log_with_its_arguments_is_a_run_by_itself(tmp_path: Path) -> None:
    """Of the GPUs that they say; whatever lies beside it."""
    folder = written(tmp_path, train_log=BLOCK + STEPS.replace("128 |", "64 |"), train_sh=LLAMA, notes_md="#")
    found = only(read_measured_files([folder / "train.log"], ON_H100))
    assert (found.run_id, found.place, found.source) == ("train.log", "train.log", folder.name)
    assert found.labels == {"gpu": "h100-sxm-80gb", "stack": "megatron-core", "precision": "bf16"}
    assert (found.iteration_time_s, found.gpus, found.global_batch_size, found.sequence_length) == (3.0, 16, 64, 2048)


@pytest.mark.parametrize("name", ["train_sh", "launch_sh"])
def test_the_run_of_a_log_lies_beside_it(tmp_path: Path, name: str) -> None:
    """In the file that is called like it, or in the only one of the folder; that one is not left out, as others are."""
    folder = written(tmp_path, train_log=STEPS, notes_md="nothing", **{name: LLAMA.replace("EXTRA", "")})
    table = read_measured_files([folder], ON_H100)
    assert (only(table).gpus, only(table).global_batch_size) == (32, 128)
    assert only(table).assumptions[0] == f"its run is that of {name.replace('_', '.')}, which lies beside it"
    assert reasons(table) == {"notes.md": "is neither a log nor a table of runs"}


def test_of_several_scripts_the_one_that_is_called_like_the_log_counts(tmp_path: Path) -> None:
    """Any other log of the folder has only those left that are no other log's; of several none is guessed."""
    script, other = LLAMA.replace("EXTRA", ""), SMALL.replace("EXTRA", "--global-batch-size 128")
    folder = written(tmp_path, train_log=STEPS, train_sh=script, small_sh=other, b_log=STEPS)
    table = read_measured_files([folder], ON_H100)
    assert [(each.run_id, each.gpus) for each in table.rows] == [("b.log", 8), ("train.log", 32)]
    table = read_measured_files([written(folder, third_sh=script)], ON_H100)
    assert reasons(table)["b.log"].startswith("several files beside it may be its run (small.sh, third.sh)")


def test_of_several_configurations_the_one_of_the_same_software_counts(tmp_path: Path) -> None:
    """A log of Megatron-LM is of no TOML of torchtitan; which is then left out."""
    titan_toml = '[model]\nname = "llama3"\nflavor = "8B"\n[training]\nbatch_size = 1\nseq_len = 8192\n'
    folder = written(tmp_path, out_log=STEPS, a_toml=titan_toml, run_sh=LLAMA.replace("EXTRA", ""))
    table = read_measured_files([folder], ON_H100)
    assert (only(table).gpus, list(reasons(table))) == (32, ["a.toml"])


def test_a_file_that_a_script_names_is_part_of_it(tmp_path: Path) -> None:
    """As its DeepSpeed configuration."""
    folder = written(tmp_path, out_log=STEPS, run_sh=LLAMA.replace("EXTRA", "# ds.json"), ds_json='{"train_batch_size": 128}')
    (folder / "ds.json").write_text('{"train_batch_size": 128, "zero_optimization": {"stage": 1}}')
    table = read_measured_files([folder], ON_H100)
    assert (only(table).gpus, reasons(table)) == (32, {})


def test_a_rate_and_the_batch_of_the_run_make_a_time(tmp_path: Path) -> None:
    """Tokens/s of a GPU as torchtitan prints them, samples/s of all as DeepSpeed does."""
    run = "model: llama-3.1-8b\ncluster: dgx-h100\nstack: generic\nsequence_length: 8192\ngpus: 8\n"
    run += "sharding: zero3\nrecompute: full\nstages: [{global_batch_size: 16}]\n"
    rates = "\n".join(titan(step) for step in range(1, 41))
    folder = written(tmp_path, a_log=rates, a_yaml=run, b_log=DEEPSPEED, b_yaml=run)
    table = read_measured_files([folder])
    assert {each.run_id: each.iteration_time_s for each in table.rows} == {"a.log": 16 * 8192 / 8 / 6150, "b.log": 2.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (STEPS.replace("  128 |", "  512 |"), "global batch: 512 in the log, 128 in train.sh; it is another run"),
        (BLOCK, "it is a Megatron-LM log without the line of a step"),
        ("iteration 1/ 100 |", "is neither a log nor a table of runs"),
    ],
)
def test_a_log_that_cannot_be_read_is_named_and_the_others_stay(tmp_path: Path, text: str, reason: str) -> None:
    """With the reason, in one sentence."""
    folder = written(tmp_path, train_log=text, train_sh=LLAMA.replace("EXTRA", ""), good_log=BLOCK + line(1, batch=64))
    table = read_measured_files([folder], ON_H100)
    assert [each.run_id for each in table.rows] == ["good.log"]
    assert reasons(table)["train.log"] == reason


def test_folders_logs_and_tables_are_mixed_and_a_log_counts_once(tmp_path: Path) -> None:
    """Rows keep their file and line; folders in folders are read, hidden ones not."""
    script = LLAMA.replace("EXTRA", "")
    written(tmp_path / "a", train_log=STEPS, train_sh=script)
    written(tmp_path / ".hidden", train_log=STEPS, train_sh=script)
    rows = published_rows("Nemotron-4 15B")[:2]
    write_rows(tmp_path / "runs.csv", rows[0], rows[1] | {"gpus": ""})
    table = read_measured_files([tmp_path, tmp_path / "a" / "train.log"], ON_H100)
    assert [each.place for each in table.rows] == ["runs.csv, line 2", "a/train.log"]
    assert reasons(table) == {"runs.csv": "runs.csv, line 3, column gpus: not stated"}


@pytest.mark.parametrize(
    ("files", "given", "sentence"),
    [
        ({"train_log": STEPS, "train_sh": LLAMA.replace("EXTRA", "")}, {}, "train.log: cluster: nothing says it; --cluster"),
        ({"train_log": STEPS}, {"cluster": "dgx-h100"}, "nothing in it or beside it says which run it is of"),
        ({"notes_md": "nothing"}, {}, "no log and no table of measured runs is in "),
    ],
)
def test_files_without_any_run_are_refused(tmp_path: Path, files: dict[str, str], given: dict[str, str], sentence: str) -> None:
    """By the log that comes nearest."""
    with pytest.raises(InputError, match=sentence):
        read_measured_files([written(tmp_path, **files)], GivenBeside(**given))


def test_a_number_of_gpus_is_for_logs_that_do_not_say_it(tmp_path: Path) -> None:
    """Those that do keep theirs."""
    script = SMALL.replace("torchrun --nproc-per-node 8", "python").replace("EXTRA", "--global-batch-size 128")
    folder = written(tmp_path, train_log=STEPS, train_sh=script, own_log=BLOCK + line(1, batch=64))
    with pytest.raises(InputError, match="gpus: nothing says how many; --gpus 64 would"):
        read_measured_files([folder / "train.log"], ON_H100)
    table = read_measured_files([folder], GivenBeside(cluster="dgx-h100", gpus="64"))
    assert [(each.run_id, each.gpus) for each in table.rows] == [("own.log", 16), ("train.log", 64)]


def test_a_locked_folder_is_named_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' folders lie among the logs of a cluster; root sees all, so that the lock is a stand-in here."""
    folder = written(tmp_path, train_log=STEPS, train_sh=LLAMA.replace("EXTRA", ""))
    written(tmp_path / "others", train_log=STEPS)
    may = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "others" and may(path, mode))
    table = read_measured_files([folder], ON_H100)
    assert only(table).run_id == "train.log"
    assert reasons(table) == {"others": "cannot be read: permission denied"}


def test_what_cannot_even_be_looked_at_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link whose end nobody may see, as /proc has them, and a folder that is gone once it is listed."""
    folder = written(tmp_path, train_log=STEPS, train_sh=LLAMA.replace("EXTRA", ""))
    (tmp_path / "gone").mkdir()
    (tmp_path / "seen").mkdir()
    is_dir, listed = Path.is_dir, Path.iterdir

    def looked_at(path: Path) -> bool:
        if path.name == "seen":
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    def entries(path: Path) -> Iterator[Path]:
        if path.name == "gone":
            raise FileNotFoundError(2, "No such file or directory")
        return listed(path)

    monkeypatch.setattr(Path, "is_dir", looked_at)
    monkeypatch.setattr(Path, "iterdir", entries)
    table = read_measured_files([folder], ON_H100)
    assert only(table).run_id == "train.log"
    assert reasons(table) == {"seen": "cannot be read: permission denied"}
