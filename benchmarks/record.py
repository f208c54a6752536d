"""One run as JSON: what was measured, of what, on which machine; and the last one that was kept."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bars import judge
from benchmarks.figures import Figures
from benchmarks.runner import Results
from benchmarks.systems.system import System

SCHEMA = "vpnd.benchmark/1"
KEPT = Path(__file__).with_name("latest.json")


@dataclass(frozen=True)
class Machine:
    """Shares are of all processors: before anything was started, and with every system standing idle."""

    processor: str
    processors: int
    kernel: str
    busy_before: float
    busy_idle: float

    @classmethod
    def this(cls, busy_before: float, busy_idle: float) -> Machine:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else os.uname().machine
        shares = (round(share, 3) for share in (busy_before, busy_idle))
        return cls(processor, os.cpu_count() or 1, os.uname().release, *shares)


def record_of(
    results: Results, systems: Sequence[System], machine: Machine, *, rounds: int, seconds: int
) -> dict[str, object]:
    """Gives all of a run as what JSON can hold."""
    bars = [
        {
            "title": judged.bar.title,
            "wanted": judged.bar.wanted,
            "at_least": judged.bar.is_least,
            "unit": judged.bar.unit,
            "measured": asdict(judged.measured) if judged.measured else None,
            "met": judged.is_met,
        }
        for judged in judge(results.figures)
    ]
    return {
        "schema": SCHEMA,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(machine),
        "rounds": rounds,
        "seconds": seconds,
        "systems": {system.name: {"about": system.about, "version": system.version()} for system in systems},
        "figures": results.figures,
        "failures": results.failures,
        "bars": bars,
    }


def write(record: dict[str, object], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_kept(file: Path = KEPT) -> tuple[str, Figures]:
    """Gives when the kept run was taken and its figures; nothing where there is none of this schema."""
    if not file.exists():
        return "", {}
    record = json.loads(file.read_text(encoding="utf-8"))
    if record.get("schema") != SCHEMA:
        return "", {}
    return record["taken_at"], record["figures"]
