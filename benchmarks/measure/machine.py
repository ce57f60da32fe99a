"""Where was a record taken, and in what state was the hardware? Provenance, and what NVML says of GPUs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch

from perfmodel import __version__
from perfmodel.benchmarks.measure.kernels.tensors import cache_bytes

CPU_INFO: Final = Path("/proc/cpuinfo")
MEMORY_INFO: Final = Path("/proc/meminfo")
REASONS: Final = {  # bits of nvmlDeviceGetCurrentClocksThrottleReasons, nvml.h
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
HARMLESS: Final = ("idle", "application clocks")
MOST_LINKS: Final = 18  # NVLinks of a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """The state of one GPU; None where it does not say."""

    name: str
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    links_up: int | None = None  # NVLinks that are active
    links: int | None = None

    def text(self) -> str:
        """Everything that is known, on one line.

        >>> GpuState(name="H100", sm_clock_mhz=1980, power_w=412.0, power_limit_w=700.0, links_up=17, links=18).text()
        'SM 1980 MHz, 412 of 700 W, NVLink 17 of 18'
        """
        parts = {
            "SM {0} MHz": (self.sm_clock_mhz,),
            "memory {0} MHz": (self.memory_clock_mhz,),
            "{0:.0f} of {1:.0f} W": (self.power_w, self.power_limit_w),
            "{0} C": (self.temperature_c,),
            "throttled by {0}": (" and ".join(self.throttle_reasons) or None,),
            "NVLink {0} of {1}": (self.links_up, self.links),
        }
        return ", ".join(form.format(*values) for form, values in parts.items() if None not in values)


class Nvml:
    """Reads the GPUs that this process may use through pynvml, or a module like it; without one there are no readings."""

    def __init__(self, module: Any = None) -> None:
        self.module = module

    @classmethod
    def open(cls) -> Nvml:
        """NVML where it is installed and finds a driver, else a reader of nothing."""
        try:
            module = import_module("pynvml")
            module.nvmlInit()
        except (ImportError, OSError):
            return cls()
        except Exception as error:
            if type(error).__name__.startswith("NVMLError"):  # no driver: the class is that of a module that may not be there
                return cls()
            raise
        return cls(module)

    def readings(self) -> tuple[GpuState, ...]:
        """What each GPU shows at this moment."""
        return tuple(self._reading(handle) for handle in self._handles())

    def computing(self) -> list[int]:
        """How many processes compute on each GPU; 0 where NVML does not say."""
        return [len(self._ask("nvmlDeviceGetComputeRunningProcesses", handle) or ()) for handle in self._handles()]

    def driver(self) -> str:
        """Version of the driver; empty where it is not known."""
        return _words(self._ask("nvmlSystemGetDriverVersion"))

    def _handles(self) -> list[Any]:
        if self.module is None:
            return []
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = chosen.split(",") if chosen else [str(index) for index in range(self._ask("nvmlDeviceGetCount") or 0)]
        found = [self._handle(name.strip()) for name in names]
        return [handle for handle in found if handle is not None]

    def _handle(self, name: str) -> Any:
        """Of a GPU by its number or its UUID."""
        if name.isdigit():
            return self._ask("nvmlDeviceGetHandleByIndex", int(name))
        return self._ask("nvmlDeviceGetHandleByUUID", name)

    def _reading(self, handle: Any) -> GpuState:
        power, limit = self._ask("nvmlDeviceGetPowerUsage", handle), self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        states = [self._ask("nvmlDeviceGetNvLinkState", handle, link) for link in range(MOST_LINKS)]
        known = [state for state in states if state is not None]
        return GpuState(
            name=_words(self._ask("nvmlDeviceGetName", handle)),
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, self.module.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, self.module.NVML_CLOCK_MEM),
            power_w=None if power is None else power / 1e3,
            power_limit_w=None if limit is None else limit / 1e3,
            temperature_c=self._ask("nvmlDeviceGetTemperature", handle, self.module.NVML_TEMPERATURE_GPU),
            throttle_reasons=reasons(self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle) or 0),
            links_up=sum(known) if known else None,
            links=len(known) or None,
        )

    def _ask(self, question: str, *arguments: Any) -> Any:
        """The answer, or None where this GPU has none."""
        try:
            return getattr(self.module, question)(*arguments)
        except AttributeError:
            return None
        except self.module.NVMLError:
            return None


def reasons(bits: int) -> tuple[str, ...]:
    """Why clocks are not higher, in words.

    >>> reasons(0x44)
    ('power cap', 'hardware thermal slowdown')
    """
    return tuple(word for bit, word in REASONS.items() if bits & bit)


def warnings(before: Sequence[GpuState], after: Sequence[GpuState]) -> list[str]:
    """A sentence for each GPU whose clocks were held back when the measurement began or ended."""
    sentences = []
    for number, (first, last) in enumerate(zip(before, after, strict=True)):
        held = {word: None for reading in (first, last) for word in reading.throttle_reasons if word not in HARMLESS}
        if held:
            sentences.append(
                f"the clocks of GPU {number} ({last.name}) were held back by {' and '.join(held)}: SM {first.sm_clock_mhz} MHz "
                f"before, {last.sm_clock_mhz} MHz after; its times are those of a GPU that is slowed down"
            )
    return sentences


def provenance(device: str, command: str) -> dict[str, str]:
    """What every record says of where it was taken."""
    versions = [f"torch {torch.__version__}"]
    if device == "cuda":
        versions += [f"CUDA {torch.version.cuda}", f"NCCL {'.'.join(str(part) for part in torch.cuda.nccl.version())}"]
    return {
        "gpu": gpu_name(device),
        "device": device,
        "driver": Nvml.open().driver() or "none",
        "software": ", ".join(versions),
        "commit": commit_of(Path(__file__).resolve()),
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "host_cores": str(os.cpu_count() or "unknown"),
        **_built(device),
    }


def _built(device: str) -> dict[str, str]:
    """What a device is made of, as far as the machine says: a core has its share of the memory, and all of the last cache."""
    if device == "cuda":
        properties = torch.cuda.get_device_properties()
        memory, processors = int(properties.total_memory), int(properties.multi_processor_count)
    else:
        memory, processors = int(memory_bytes("MemTotal") / (os.cpu_count() or 1)), 1
    return {"memory_bytes": str(memory), "cache_bytes": str(cache_bytes(device)), "multiprocessors": str(processors)}


def memory_bytes(name: str) -> float:
    """What the system says of its memory (MemTotal, MemAvailable); a pebibyte where it says nothing."""
    lines = MEMORY_INFO.read_text().splitlines() if MEMORY_INFO.is_file() else []
    found = [float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return found[0] if found else 2.0**50


def gpu_name(device: str) -> str:
    """Its name; one core of a CPU stands for a GPU."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return f"cpu: {cpu_model()}, 1 of {os.cpu_count() or 1} cores"


def cpu_model() -> str:
    """As the kernel calls it."""
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def state_text(readings: Sequence[GpuState]) -> dict[str, str]:
    """What a record says of the state of the GPU that this process computes on; nothing where nobody knows."""
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    return {"state": readings[device].text()} if device < len(readings) else {}


def commit_of(file: Path) -> str:
    """The commit of the checkout that a file of perfmodel belongs to; of an installed perfmodel, its version.

    A virtual environment may lie inside a repository of its user, whose commit says nothing of perfmodel.
    """
    tracked = _git(file.parent, "ls-files", "--error-unmatch", file.name)
    commit = _git(file.parent, "rev-parse", "--short", "HEAD") if tracked else ""
    return commit or f"perfmodel {__version__}"


def _git(folder: Path, *arguments: str) -> str:
    """What git prints in a folder; nothing where it fails or is not installed."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _words(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
