"""What the numbers were measured on: processor, caches, clock, load, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import numpy as np

# Of the processor's flags, those that decide which kernels run.
ISA_FLAGS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni"),
    *("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "sve", "sve2", "i8mm", "bf16"),
)
_CPU = Path("/sys/devices/system/cpu")


def available_cpus() -> list[int]:
    """The CPUs that this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(threads: int) -> list[int]:
    """Restrict this process to the first `threads` CPUs it may use; all systems are pinned so.

    Returns the CPUs; where the operating system cannot pin (macOS, Windows), none.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    cpus = available_cpus()[:threads]
    os.sched_setaffinity(0, cpus)
    return cpus


def cache_sizes() -> dict[str, int]:
    """Bytes of L1 (data), L2 and L3 as one core sees them; what is unknown is left out."""
    sizes: dict[str, int] = {}
    for index in sorted((_CPU / "cpu0" / "cache").glob("index*")):
        if _read(index / "type") in ("Data", "Unified"):
            text = _read(index / "size")
            unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 0)
            if unit:
                sizes[f"L{_read(index / 'level')}"] = int(text[:-1]) * unit
    return sizes


def load_average() -> float | None:
    """Runnable processes over the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def describe() -> dict[str, object]:
    """Everything about the machine that a reader of the results needs."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "family_model_stepping": [info.get(k) for k in ("cpu family", "model", "stepping")],
        "microcode": info.get("microcode"),
        "architecture": platform.machine(),
        "isa_flags": [flag for flag in ISA_FLAGS if flag in flags],
        "virtual": "hypervisor" in flags,
        "cpus": os.cpu_count(),
        "cpus_allowed": available_cpus(),
        "threads_per_core": _threads_per_core(),
        "caches": cache_sizes(),
        "memory_bytes": memory_bytes(),
        "governor": _read(_CPU / "cpu0/cpufreq/scaling_governor") or None,
        "boost": _read(_CPU / "cpufreq/boost") or None,
        "huge_pages": _read(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or None,
        "kernel": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "libc": " ".join(platform.libc_ver()),
        "load_1min": load_average(),
    }


def git_revision(folder: Path) -> str | None:
    """Commit of the checkout that `folder` is in, marked when files differ; None outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    block = _read(Path("/proc/cpuinfo")).split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _threads_per_core() -> int | None:
    siblings = _read(_CPU / "cpu0/topology/thread_siblings_list")
    return len(siblings.replace("-", ",").split(",")) if siblings else None


def resident_bytes() -> int:
    """Memory that this process occupies; 0 where the system does not say."""
    pages = _read(Path("/proc/self/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def memory_bytes() -> int | None:
    """Memory of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
