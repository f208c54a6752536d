"""What `vpnctl top` looks like: one screen of rich, or pictures below each other where there is none.

Owns columns and colours. Every word from outside is put in as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vpnd.control import InstanceReport
from vpnd.ctl.format import format_age, format_bytes, format_duration, format_milliseconds
from vpnd.ctl.status import STATE_COLOURS
from vpnd.ctl.terminal import Terminal
from vpnd.ctl.top import Frame, Row

_TEXTS = ("INSTANCE", "PEER", "STATE", "ENDPOINT")
_FIGURES = ("HANDSHAKE", "RTT", "RX/S", "TX/S", "RX", "TX", "DROPS/S")
_WIDTH = 160  # characters, where no terminal says otherwise


def show(terminal: Terminal, frames: Iterable[Frame]) -> None:
    """Shows the frames as they come."""
    is_screen = terminal.out.isatty() and not Console(file=terminal.out).is_dumb_terminal
    console = Console(
        file=terminal.out,
        force_terminal=is_screen,
        no_color=not terminal.has_colour,
        width=None if is_screen else _WIDTH,
        highlight=False,
    )
    if not is_screen:
        for frame in frames:
            console.print(picture(frame, None))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for frame in frames:
            live.update(picture(frame, console.height), refresh=True)


def picture(frame: Frame, height: int | None) -> RenderableType:
    """Puts the instances above and as many peers as fit below; `height` is in lines, None for no limit."""
    head = [_headline(instance) for instance in frame.report.instances]
    head += [Text(f"! {error}", style="red") for error in frame.errors]
    for instance in frame.report.instances:
        for finding in instance.health:
            style = "red" if finding.level == "warning" else "yellow"
            head.append(Text(f"{instance.instance}: {finding.code}: {finding.text}", style=style))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in _TEXTS:
        table.add_column(header, no_wrap=True)
    for header in _FIGURES:
        table.add_column(header, justify="right", no_wrap=True)
    # A blank line, the headers and the line about the rest need three.
    shown = frame.rows if height is None else frame.rows[: max(0, height - len(head) - 3)]
    for row in shown:
        table.add_row(*_cells(row))
    left = len(frame.rows) - len(shown)
    rest = [Text(f"and {left} more peers", style="dim")] if left else []
    return Group(*head, Text(""), table, *rest)


def _headline(instance: InstanceReport) -> Text:
    up = sum(peer.state == "up" for peer in instance.peers)
    text = Text(instance.instance, style="bold")
    text.append(" ")
    text.append(instance.state, style=STATE_COLOURS[instance.state])
    text.append(f" {format_duration(instance.uptime_s)}   peers {up} of {len(instance.peers)} up")
    if instance.plane is None:
        text.append("   no plane", style="red")
    elif instance.plane.uptime_s is not None:
        text.append(f"   plane up {format_duration(instance.plane.uptime_s)}")
    return text


def _cells(row: Row) -> tuple[RenderableType, ...]:
    peer = row.peer
    return (
        Text(row.instance),
        Text(peer.name),
        Text(peer.state, style=STATE_COLOURS[peer.state]),
        Text(peer.endpoint or "-"),
        format_age(peer.handshake_age_s),
        format_milliseconds(peer.rtt_ms),
        _rate(row.rx_rate),
        _rate(row.tx_rate),
        format_bytes(peer.rx_bytes),
        format_bytes(peer.tx_bytes),
        "-" if row.drop_rate is None else f"{row.drop_rate:.0f}",
    )


def _rate(bytes_each_second: float | None) -> str:
    return "-" if bytes_each_second is None else format_bytes(round(bytes_each_second))
