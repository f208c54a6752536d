"""What a process holds of the machine: descriptors, threads, memory; read from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resources:
    descriptors: int
    threads: int
    resident_kib: int


def resources_of(pid: int) -> Resources:
    fields = status_of(pid)
    return Resources(
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(fields["Threads"]),
        int(fields["VmRSS"].split()[0]),
    )


def status_of(pid: int, thread: int | None = None) -> dict[str, str]:
    """The lines of /proc/PID/status, or of one thread's."""
    path = Path(f"/proc/{pid}/status") if thread is None else Path(f"/proc/{pid}/task/{thread}/status")
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def threads_of(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def processor_s(pid: int) -> float:
    """Processor time used so far, to the nanosecond of the scheduler."""
    return (
        sum(
            int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
            for thread in threads_of(pid)
        )
        / 1e9
    )
