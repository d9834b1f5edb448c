"""What the processor can multiply."""

from __future__ import annotations

from pathlib import Path


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies matrices of bf16 (AMX), as Linux says; False elsewhere."""
    try:
        words = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return "amx_bf16" in words
