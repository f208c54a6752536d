"""Name servers of our link, told to systemd-resolved over D-Bus.

Owns the comparison with what resolved has for the link, and a note that it was told by us: what others
told it about our link stays. Whoever has no name servers to set never speaks to the bus. resolved forgets
a link that is deleted, so removal needs nothing of this.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, MessageType, Properties, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.low_level import Message

from vpnd.errors import HostError
from vpnd.host.plan import Change, DnsPlan
from vpnd.host.state import here

FILE_NAME = "dns"
_TIMEOUT_S = 5.0
_NAME = "org.freedesktop.resolve1"
_MANAGER = DBusAddress("/org/freedesktop/resolve1", _NAME, f"{_NAME}.Manager")
_LINK = f"{_NAME}.Link"
_STEP = "name servers"
_RESTART = "if this stays, systemctl restart systemd-resolved"
_BEGIN = "install and start systemd-resolved, or leave name servers out of the configuration"

# What the bus answers where nobody has the name, and what resolved answers to whom it does not obey.
_ABSENT = ("ServiceUnknown", "NameHasNoOwner", "Spawn.", "NoSuchUnit", "UnitMasked", "NoReply")
_REFUSED = ("AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed")


class LinkDns:
    """What resolved shall know of one instance's link; `state_dir` is that instance's own folder."""

    def __init__(self, state_dir: Path) -> None:
        self._note = state_dir / FILE_NAME

    def apply(self, link: str, plan: DnsPlan | None) -> tuple[Change, ...]:
        """Brings resolved to the plan, None for nothing, and gives the changes made. HostError."""
        noted = self._read_note()
        if plan is None and noted is None:
            return ()
        try:
            index = socket.if_nametoindex(link)
        except OSError as error:
            raise HostError(_STEP, f"there is no link {link}") from error
        mark = f"{here()[0]} {index}"
        if plan is None:
            # A note of another boot or of a link that is gone tells of nothing that stands.
            changes = self._revert(link, index) if noted == mark else ()
            self._note.unlink(missing_ok=True)
            return changes
        with _resolved() as bus:
            if _standing(bus, index) == plan:
                return ()
            self._write_note(mark)
            _set(bus, index, plan)
        return (Change("dns", f"{link} asks {plan}"),)

    def _revert(self, link: str, index: int) -> tuple[Change, ...]:
        with _resolved() as bus:
            _call(bus, _MANAGER, "RevertLink", "i", (index,))
        return (Change("dns", f"{link} asks nobody"),)

    def _read_note(self) -> str | None:
        try:
            return self._note.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return ""

    def _write_note(self, mark: str) -> None:
        # A full disk keeps nobody from name servers; without the note a later revert is resolved's own,
        # when the link goes.
        with contextlib.suppress(OSError):
            self._note.write_text(mark + "\n", encoding="ascii")


@contextlib.contextmanager
def _resolved() -> Iterator[DBusConnection]:
    try:
        bus = open_dbus_connection(bus="SYSTEM")
    except (OSError, ValueError) as error:
        raise HostError(_STEP, f"the system bus is not to be reached ({error}); {_BEGIN}") from error
    try:
        yield bus
    except (OSError, EOFError, TimeoutError) as error:
        what = str(error) or f"nothing for {_TIMEOUT_S:g} s"
        raise HostError(_STEP, f"systemd-resolved does not answer ({what}); {_RESTART}") from error
    finally:
        bus.close()


def _set(bus: DBusConnection, index: int, plan: DnsPlan) -> None:
    servers = [
        (socket.AF_INET if server.version == 4 else socket.AF_INET6, server.packed) for server in plan.servers
    ]
    domains = [(domain.removeprefix("~"), domain.startswith("~")) for domain in plan.domains]
    # Domains first: no moment in which the servers are asked for everything.
    _call(bus, _MANAGER, "SetLinkDomains", "ia(sb)", (index, domains))
    _call(bus, _MANAGER, "SetLinkDefaultRoute", "ib", (index, plan.is_default))
    _call(bus, _MANAGER, "SetLinkDNS", "ia(iay)", (index, servers))


def _standing(bus: DBusConnection, index: int) -> DnsPlan:
    (path,) = _call(bus, _MANAGER, "GetLink", "i", (index,))
    link = DBusAddress(path, _NAME, _LINK)
    servers, domains, is_default = (
        _ask(bus, Properties(link).get(name))[0][1] for name in ("DNS", "Domains", "DefaultRoute")
    )
    return DnsPlan(
        tuple(ipaddress.ip_address(bytes(packed)) for _, packed in servers),
        tuple(("~" if routes_only else "") + domain for domain, routes_only in domains),
        is_default,
    )


def _call(bus: DBusConnection, to: DBusAddress, method: str, signature: str, body: tuple[Any, ...]) -> Any:
    return _ask(bus, new_method_call(to, method, signature, body))


def _ask(bus: DBusConnection, message: Message) -> Any:
    reply = bus.send_and_get_reply(message, timeout=_TIMEOUT_S)
    if reply.header.message_type is not MessageType.error:
        return reply.body
    name = str(reply.header.fields.get(HeaderFields.error_name, ""))
    text = str(reply.body[0]) if reply.body else name
    if any(word in name for word in _ABSENT):
        raise HostError(_STEP, f"systemd-resolved does not run ({text}); {_BEGIN}")
    if "TimedOut" in name:
        # It runs and never came to have its name, as after an installation on Debian 12.
        raise HostError(_STEP, f"systemd-resolved does not answer ({text}); {_RESTART}")
    if any(word in name for word in _REFUSED):
        raise HostError(
            _STEP,
            f"systemd-resolved does not obey this user ({text}); "
            "the package's polkit rule allows it, which needs polkitd to run",
        )
    raise HostError(_STEP, f"systemd-resolved: {text}")
