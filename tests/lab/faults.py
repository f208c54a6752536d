"""Faults of the classical topology: what is done to a side so that it has one, and so that it has none.

Owns no expectation; test_why.py has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.classical import V_INNER, Classical
from tests.lab.vpnd import Vpnd

# Nobody's public key.
STRANGER = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="

Do = Callable[[Classical], object]
Side = Callable[[Classical], Vpnd]
Cause = tuple[str, str] | None  # the check that fails first, and words of what it says


@dataclass(frozen=True)
class Fault:
    """`inject` and `mend` are done while both run or, where `mend` is None, `inject` before they start."""

    name: str
    caller: Cause
    called: Cause
    inject: Do
    mend: Do | None = None

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def edit(vpnd: Vpnd, old: str, new: str) -> None:
    text = vpnd.config_file.read_text()
    assert old in text
    vpnd.config_file.write_text(text.replace(old, new))


def edited(of: Side, old: str, new: str) -> Do:
    """Changes a file and has a daemon that runs follow it."""

    def do(at: Classical) -> None:
        vpnd = of(at)
        edit(vpnd, old, new)
        if vpnd.daemon is not None and vpnd.daemon.poll() is None:
            vpnd.ask("reload")

    return do


def by_u(*commands: str) -> Do:
    return lambda at: [at.u.run(command) for command in commands]


def by_gateway(*commands: str) -> Do:
    return lambda at: [at.gateway.run(command) for command in commands]


def all_of(*several: Do) -> Do:
    return lambda at: [do(at) for do in several]


def u(at: Classical) -> Vpnd:
    return at.u_vpnd


def gateway(at: Classical) -> Vpnd:
    return at.gateway_vpnd


def reload_u(at: Classical) -> None:
    at.u_vpnd.ask("reload")


def reconnect(at: Classical) -> None:
    at.u_vpnd.ask("reconnect", peer="gateway")


def ping_v(at: Classical) -> None:
    assert at.u.is_silent(V_INNER, count=3, wait_s=0.3)


def drop(chain: str, rule: str) -> str:
    return f"""table inet fault {{
        chain fault {{
            type filter hook {chain} priority 0;
            {rule} drop
        }}
    }}"""


def mend_firewalls(at: Classical) -> None:
    for host in (at.u, at.gateway):
        host.nft("add table inet fault\ndelete table inet fault")


def stop_gateway(at: Classical) -> None:
    at.gateway_vpnd.stop()


def start_gateway(at: Classical) -> None:
    at.gateway_vpnd.start()
    reconnect(at)


def three_for_two(at: Classical) -> None:
    """Gives the gateway's file more peers than its pool has addresses."""
    keys = [(name, gateway(at).new_key(name).public) for name in ("a", "b", "c")]
    peers = "".join(f'[peer.{name}]\npublic_key = "{key}"\n' for name, key in keys)
    edit(gateway(at), "[routing]", f'[pool]\nipv4 = "10.8.0.0/31"\n{peers}[routing]')


def clock_of_u(shift_s: float) -> Do:
    """Starts U anew with another clock and no memory of what it showed before."""

    def do(at: Classical) -> None:
        at.u_vpnd.stop()
        for file in at.u_vpnd.state_dir.glob("last-timestamp*"):
            file.unlink()
        at.u_vpnd.clock_shift_s = shift_s
        at.u_vpnd.start()

    return do


def another_key(of: Side, whose: Side) -> Do:
    """Has the file of one side name a key for the other that the other has not got."""
    return lambda at: edit(of(at), whose(at).key.public, STRANGER)


def preshared_key(of: Side, peer: str, name: str) -> Do:
    return lambda at: edit(of(at), f"[{peer}]", f'[{peer}]\npreshared_key = "{of(at).new_psk(name)}"')


def tap_at_gateway(at: Classical) -> None:
    edit(gateway(at), 'type = "tun"', 'type = "tap"')


def another_knock(at: Classical) -> None:
    edit(gateway(at), "[local]", f'[local]\nknock = "{gateway(at).new_psk("knock")}"')
