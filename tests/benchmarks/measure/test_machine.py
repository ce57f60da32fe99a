"""Does a record say where it was taken, and does somebody say when clocks were held back?"""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from perfmodel import __version__
from perfmodel.benchmarks.measure.machine import GpuState, Nvml, commit_of, provenance, reasons, state_text, warnings
from perfmodel.evidence.steps.records import PROVENANCE
from perfmodel.model.cores import on_one_core, release, take_turns

GOOD = GpuState(name="NVIDIA H100", sm_clock_mhz=1980, throttle_reasons=("idle",))


class FakeError(Exception):
    """What NVML raises where a GPU does not know."""


def fake(**answers: Any) -> Any:
    """A module like pynvml with two GPUs that know little."""

    def refuse(*_: Any) -> Any:
        raise FakeError

    module: dict[str, Any] = {
        "NVMLError": FakeError,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetName": lambda _: b"NVIDIA H100",
        "nvmlDeviceGetClockInfo": lambda _, kind: {1: 1755, 2: 2619}[kind],
        "nvmlDeviceGetPowerUsage": lambda _: 512_000,
        "nvmlDeviceGetEnforcedPowerLimit": lambda _: 700_000,
        "nvmlDeviceGetTemperature": lambda _, __: 61,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x4,
        "nvmlDeviceGetNvLinkState": lambda _, link: 1 if link != 3 else 0,
        "nvmlSystemGetDriverVersion": lambda: "550.54",
    }
    return SimpleNamespace(**module | {name: refuse if answer is ... else answer for name, answer in answers.items()})


@pytest.fixture(autouse=True)
def all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hides a GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_reading_holds_all_that_nvml_says() -> None:
    """Watts, not milliwatts; words, not bits; 17 of 18 links."""
    reader = Nvml(fake())
    first, second = reader.readings()
    assert first == second
    expected = "SM 1755 MHz, memory 2619 MHz, 512 of 700 W, 61 C, throttled by power cap, NVLink 17 of 18"
    assert first.text() == expected
    assert first.name == "NVIDIA H100"
    assert reader.driver() == "550.54"


def test_what_a_gpu_does_not_know_is_left_out() -> None:
    """No NVLink and no power meter, as on a small card."""
    (only, _) = Nvml(fake(nvmlDeviceGetNvLinkState=..., nvmlDeviceGetPowerUsage=...)).readings()
    assert (only.links, only.links_up, only.power_w) == (None, None, None)
    assert only.text() == "SM 1755 MHz, memory 2619 MHz, 61 C, throttled by power cap"


def test_only_visible_gpus_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number or by name."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-abc")
    assert [each.name for each in Nvml(fake(nvmlDeviceGetName=str)).readings()] == ["1", "GPU-abc"]


def test_without_nvml_nothing_is_read() -> None:
    """As on a CPU, or behind a driver that has lost its GPUs."""
    assert Nvml().readings() == ()
    assert Nvml(fake(nvmlDeviceGetCount=...)).readings() == ()
    assert Nvml(fake(nvmlDeviceGetHandleByIndex=...)).readings() == ()
    assert not Nvml().driver()
    assert state_text(()) == {}


def test_clocks_that_are_held_back_are_one_sentence() -> None:
    """Those of the GPU that was, with its clocks before and after."""
    slow = GpuState(name="NVIDIA H100", sm_clock_mhz=1200, throttle_reasons=reasons(0x44))
    (sentence,) = warnings((GOOD, GOOD), (GOOD, slow))
    assert sentence.startswith("the clocks of GPU 1 (NVIDIA H100) were held back by power cap and hardware thermal slowdown: ")
    assert "SM 1980 MHz before, 1200 MHz after" in sentence


@pytest.mark.parametrize("bits", [0x0, 0x1, 0x2, 0x3])
def test_a_gpu_that_is_idle_or_does_as_it_was_told_is_no_warning(bits: int) -> None:
    """Nor one that runs free."""
    calm = GpuState(name="NVIDIA H100", sm_clock_mhz=1980, throttle_reasons=reasons(bits))
    assert warnings((calm,), (calm,)) == []


def test_provenance_says_what_every_record_must_say() -> None:
    """And the commit and the cores; one core stands for a GPU."""
    born = provenance("cpu", "python -m it")
    assert set(PROVENANCE) <= set(born)
    assert born["gpu"].startswith("cpu: ")
    assert born["gpu"].endswith(f", 1 of {os.cpu_count()} cores")
    assert born["command"] == "python -m it"
    assert all(born.values())


def test_a_rank_on_a_cpu_has_one_core_and_one_thread() -> None:
    """Ranks one after the other have cores of their own, as long as there are some."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        seen = []
        for rank in range(len(cores)):
            on_one_core("cpu", rank)
            seen += list(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores)
        assert sorted(seen) == sorted(cores)
        assert torch.get_num_threads() == 1
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no such policy")
def test_threads_of_a_rank_take_turns_and_those_after_it_do_not() -> None:
    """A thread inherits it, as gloo's do; on a GPU, and once the rank is over, everything is as it was."""
    before = os.sched_getscheduler(0)
    if before != os.SCHED_OTHER:
        pytest.skip("somebody chose a policy for this process, and keeps it")
    take_turns("cuda")
    assert os.sched_getscheduler(0) == before
    try:
        take_turns("cpu")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
    finally:
        release()
    assert os.sched_getscheduler(0) == before


def test_the_commit_is_that_of_a_checkout_alone(tmp_path: Path) -> None:
    """An installed perfmodel may lie in a repository of its user: it says its version, and not the user's commit."""
    user = ["git", "-C", str(tmp_path), "-c", "user.name=user", "-c", "user.email=user@example.com"]
    subprocess.run([*user, "init", "--quiet"], check=True)
    subprocess.run([*user, "commit", "--quiet", "--allow-empty", "--message", "work"], check=True)
    installed = tmp_path / "machine.py"
    installed.touch()
    assert commit_of(installed) == f"perfmodel {__version__}"
    subprocess.run([*user, "add", "machine.py"], check=True)
    assert re.fullmatch("[0-9a-f]{7,}", commit_of(installed))
