"""`perfmodel plan --serve`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import perfmodel as pm
from perfmodel.commands.app import program

WORDS = ("plan", "llama-3.1-8b", "--serve", "--input", "2000", "--output", "400", "--gpu", "h100-sxm-80gb,b200")
LIMITS = ("--ttft", "1s", "--tpot", "25ms", "--requests-per-s", "10")


def ran(*words: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(program(), list(words), env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_cheapest_servers_come_first_and_lines_have_80_columns() -> None:
    """A sentence with the GPUs and the price, then a table."""
    code, output = ran(*WORDS, *LIMITS, "--precision", "bf16,fp8", "--price", "h100-sxm-80gb=2,b200=6")
    assert code == 0
    assert output.startswith("2 GPUs (h100-sxm-80gb) as 2 replicas")
    assert max(map(len, output.splitlines())) <= 80


def test_json_has_the_promise_the_options_and_the_rejected(tmp_path: Path) -> None:
    """--output says tokens; -o names the file."""
    file = tmp_path / "plan.json"
    code, _ = ran(*WORDS, *LIMITS, "-o", str(file))
    document = json.loads(file.read_text())
    assert (code, document["output_tokens"], document["tpot_limit_s"]) == (0, 400, 0.025)
    assert document["best"] == document["options"][0]
    for option in document["options"]:
        assert option["ttft_s"] <= option["ttft_s_at_confidence"] <= 1.0
        assert option["gpus"] == option["replicas"] * option["tensor_parallel"]


def test_nothing_that_keeps_it_is_exit_code_1_with_what_would() -> None:
    """Options of the command that would do."""
    code, output = ran(*WORDS, "--tpot", "1ms", "--requests-per-s", "10")
    assert code == 1
    assert "--tpot" in output
    assert "would do, with" in output


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (WORDS, "needs --requests-per-s"),
        ((*WORDS, *LIMITS, "--deadline", "14d"), "--deadline is about training"),
        (("plan", "llama-3.1-8b", "--ttft", "1s"), "--ttft is about servers; it needs --serve"),
        ((*WORDS, *LIMITS[2:], "--ttft", "1"), "has no unit; write it like 1s or 30ms"),
        ((*WORDS[:-1], "h100", *LIMITS), "h100-sxm-80gb or "),
        ((*WORDS, *LIMITS, "--price", "b200=2"), "h100-sxm-80gb has no price"),
        ((*WORDS, *LIMITS, "--price", "b20=2"), "did you mean b200?"),
        ((*WORDS, *LIMITS, "--output", "plan.json"), "-o plan.json names the file"),
        ((*WORDS, *LIMITS, "--precision", "fp9"), "did you mean fp8?"),
    ],
)
def test_wrong_input_says_what_would_work(words: tuple[str, ...], meant: str) -> None:
    """One sentence."""
    with pytest.raises(pm.InputError, match=r"\w") as caught:
        ran(*words)
    assert meant in str(caught.value)
