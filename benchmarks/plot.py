"""The plot of a run: one panel for each of the figures that say most, a bar for each system.

The cable without a tunnel is many times as good in every panel: it stands in the title, not among the bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from benchmarks.figures import FIGURES, Figures, spread, values_of

PANELS = ("tcp1_out", "tcp4_out", "cpu_out", "udp100", "rtt_median", "loaded_p99")
_COLUMNS = 3
LIMIT = "no-tunnel"
_OURS, _OTHERS = "#1f6feb", "#9aa4b2"


def draw(figures: Figures, systems: Sequence[str], file: Path) -> None:
    """Writes the plot in the format that the suffix names. The same figures give the same SVG."""
    mpl.rcParams["svg.hashsalt"] = "vpnd"
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    rows = -(-len(PANELS) // _COLUMNS)
    canvas = Canvas(figsize=(4.2 * _COLUMNS, 0.6 * rows + 0.3 * rows * len(systems)), layout="constrained")
    for axes, name in zip(canvas.subplots(rows, _COLUMNS).flat, PANELS, strict=False):
        measured = [(system, spread(values_of(figures, system, name))) for system in systems]
        known = [(system, each) for system, each in measured if each is not None and system != LIMIT]
        errors = (
            [each.median - each.low for _, each in known],
            [each.high - each.median for _, each in known],
        )
        axes.barh(
            [system for system, _ in known],
            [each.median for _, each in known],
            xerr=errors,
            color=[_OURS if system == "vpnd" else _OTHERS for system, _ in known],
            capsize=2,
        )
        axes.invert_yaxis()
        axes.set_title(_title(figures, name), fontsize=8)
        axes.tick_params(labelsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _title(figures: Figures, name: str) -> str:
    figure, limit = FIGURES[name], spread(values_of(figures, LIMIT, name))
    beside = f"; no tunnel: {limit.median:.3g}" if limit is not None else ""
    return f"{figure.title}, {figure.unit} ({'more' if figure.is_rate else 'less'} is better{beside})"
