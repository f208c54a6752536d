"""Where the time goes: a flame graph of one TCP stream through vpnd, `python -m benchmarks.flame FILE.svg`.

Samples the whole machine by perf (Debian's linux-perf) while the stream runs, folds the stacks of the
plane and of both ends of the stream, and draws them: the wider, the more time; a call stands on its caller.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from benchmarks.measures import throughput
from benchmarks.systems.vpnd import VpndSystem
from tests.lab.namespaces import laboratory

SECONDS = 5
PROGRAMS = ("vpnd-plane", "iperf3")
_RATE_HZ = 997
_WIDTH, _ROW, _LETTER = 1200.0, 17, 6.6  # pixels
_NARROWEST = 0.6
_FOOT = 40

_HEADER = re.compile(r"^(\S.*?)\s+\d+")
_FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$")

Stack = tuple[str, ...]  # outermost first


@dataclass
class Node:
    """A call in the place where it was seen: how many samples, and what it called."""

    samples: int = 0
    calls: dict[str, Node] = field(default_factory=dict)


def main() -> None:
    (target,) = sys.argv[1:] or ["docs/flame.svg"]
    record = Path("build/bench/perf.data")
    record.parent.mkdir(parents=True, exist_ok=True)
    with laboratory() as lab:
        pair = VpndSystem().build(lab)
        # Optimised programs keep no frame pointers: perf copies some of each stack and unwinds it later.
        options = f"-a --call-graph dwarf,4096 -e cpu-clock -F {_RATE_HZ} -o {record}"
        perf = subprocess.Popen(
            ["perf", "record", *options.split(), "--", "sleep", str(SECONDS)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        rate = throughput(pair, SECONDS)
        perf.wait()
    script = subprocess.run(
        ["perf", "script", "-i", str(record), "-F", "comm,tid,ip,sym,dso"],
        capture_output=True,
        text=True,
        check=True,
    )
    stacks = fold(script.stdout.splitlines(), PROGRAMS)
    Path(target).write_text(draw(stacks, f"one TCP stream, {rate:.1f} Gbit/s"))
    print(f"{target}: {sum(stacks.values())} samples at {rate:.1f} Gbit/s")


def fold(lines: Iterable[str], programs: Iterable[str]) -> Counter[Stack]:
    """Counts the stacks of these programs in what `perf script` printed; the program is the first frame."""
    wanted = set(programs)
    stacks: Counter[Stack] = Counter()
    program, frames = "", list[str]()
    for line in [*lines, ""]:
        if not line.strip():
            if program in wanted and frames:
                stacks[(program, *reversed(frames))] += 1
            program, frames = "", []
        elif frame := _FRAME.match(line):
            frames.append(_name(frame[1], frame[2]))
        elif header := _HEADER.match(line):
            program = header[1]
    return stacks


def _name(symbol: str, place: str) -> str:
    return f"[{Path(place).name}]" if symbol == "[unknown]" else symbol.removesuffix(".isra.0")


def draw(stacks: Counter[Stack], title: str) -> str:
    """Gives the stacks as SVG; a frame's title tells its share when it is pointed at."""
    root = Node()
    for stack, samples in stacks.items():
        root.samples += samples
        node = root
        for frame in stack:
            node = node.calls.setdefault(frame, Node())
            node.samples += samples
    boxes = list(_boxes(root, 0.0, 0, _WIDTH / max(root.samples, 1)))
    height = (max((depth for _, _, depth, _ in boxes), default=0) + 1) * _ROW + _FOOT
    shapes = "\n".join(_shape(box, height, _WIDTH / max(root.samples, 1)) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:.0f}" height="{height}"'
        f' font-family="monospace" font-size="11">\n'
        f'<text x="8" y="{height - 12}">{escape(title)}; {root.samples} samples</text>\n{shapes}\n</svg>\n'
    )


def _boxes(node: Node, left: float, depth: int, scale: float) -> Iterator[tuple[str, float, int, int]]:
    """Name, left edge, depth and samples of every frame that is wide enough to be seen."""
    for name, call in sorted(node.calls.items()):
        if call.samples * scale >= _NARROWEST:
            yield name, left, depth, call.samples
            yield from _boxes(call, left, depth + 1, scale)
        left += call.samples * scale


def _shape(box: tuple[str, float, int, int], height: int, scale: float) -> str:
    name, left, depth, samples = box
    width = samples * scale
    top = height - _FOOT - (depth + 1) * _ROW
    share = width / _WIDTH * 100
    shown = escape(name[: int(width / _LETTER)]) if width > 3 * _LETTER else ""
    hue = 20 + sum(name.encode()) % 35
    return (
        f"<g><title>{escape(name)}: {share:.1f} %</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{max(width - 0.3, 0.3):.1f}" height="{_ROW - 1}"'
        f' fill="hsl({hue},85%,62%)"/><text x="{left + 3:.1f}" y="{top + 12}">{shown}</text></g>'
    )


if __name__ == "__main__":
    main()
