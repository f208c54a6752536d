"""Name servers of a link, told to a real systemd-resolved on a bus of its own."""

from __future__ import annotations

import subprocess
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest
from jeepney import MessageType, new_error
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from tests.host.namespace import in_namespace, sh
from tests.host.resolved import running, unpacked
from vpnd.errors import HostError
from vpnd.host.dns import FILE_NAME, LinkDns
from vpnd.host.plan import DnsPlan

SERVERS = (ip_address("10.8.0.1"), ip_address("fd00:8::1"))
SPLIT = DnsPlan(SERVERS, ("~corp.example", "lab.example"), is_default=False)
ALL = DnsPlan(SERVERS[:1], ("~.",), is_default=True)


@pytest.fixture(scope="module", autouse=True)
def _package() -> None:
    unpacked()  # a test's own namespace has no way to fetch it


def shown(control: Path) -> str:
    words = [str(control), "--no-pager", "status", "vpn0"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


@in_namespace
def test_servers_and_domains_follow_the_plan_and_are_reverted_exactly(tmp_path: Path) -> None:
    """[E11] A second time changes nothing; what was set is gone with the plan, also by a later process."""
    sh("ip tuntap add vpn0 mode tun")
    (tmp_path / "site").mkdir()
    with running(tmp_path / "resolved") as control:
        before = shown(control)
        dns = LinkDns(tmp_path / "site")
        assert dns.apply("vpn0", None) == ()
        (change,) = dns.apply("vpn0", SPLIT)
        assert str(change) == "dns: vpn0 asks 10.8.0.1, fd00:8::1 for ~corp.example, lab.example"
        assert dns.apply("vpn0", SPLIT) == ()
        assert "DNS Servers: 10.8.0.1 fd00:8::1" in shown(control)
        assert "DNS Domain: ~corp.example lab.example" in shown(control)
        assert "-DefaultRoute" in shown(control)
        assert len(dns.apply("vpn0", ALL)) == 1
        assert "+DefaultRoute" in shown(control)
        assert "DNS Domain: ~." in shown(control)
        assert len(LinkDns(tmp_path / "site").apply("vpn0", None)) == 1
        assert shown(control) == before
        assert not (tmp_path / "site" / FILE_NAME).exists()


@in_namespace
def test_what_others_told_resolved_of_the_link_stays(tmp_path: Path) -> None:
    """Who has no name servers to set touches none, and neither does a note of another link or boot."""
    sh("ip tuntap add vpn0 mode tun")
    (tmp_path / "site").mkdir()
    with running(tmp_path / "resolved") as control:
        subprocess.run([control, "dns", "vpn0", "192.0.2.1"], check=True, timeout=30)
        before = shown(control)
        assert "192.0.2.1" in before
        dns = LinkDns(tmp_path / "site")
        assert dns.apply("vpn0", None) == ()
        (tmp_path / "site" / FILE_NAME).write_text("another boot 2\n")
        assert dns.apply("vpn0", None) == ()
        assert shown(control) == before


@in_namespace
def test_an_absent_resolved_or_bus_is_told_and_nothing_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh("ip tuntap add vpn0 mode tun")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nowhere")
    with pytest.raises(HostError, match=r"bus is not to be reached .*; install and start systemd-resolved"):
        LinkDns(tmp_path).apply("vpn0", SPLIT)
    with pytest.raises(HostError, match="there is no link vpn9"):
        LinkDns(tmp_path).apply("vpn9", SPLIT)
    with running(tmp_path / "resolved", has_resolved=False), pytest.raises(HostError, match="does not run"):
        LinkDns(tmp_path).apply("vpn0", SPLIT)
    assert not (tmp_path / FILE_NAME).exists()


@in_namespace
def test_a_resolved_that_is_not_to_be_had_of_the_bus_is_to_be_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is silent, and what a bus says of one that runs and never came to have its name."""
    sh("ip tuntap add vpn0 mode tun")
    monkeypatch.setattr("vpnd.host.dns._TIMEOUT_S", 0.3)
    with running(tmp_path / "resolved", has_resolved=False), open_dbus_connection(bus="SYSTEM") as owner:
        owner.send_and_get_reply(message_bus.RequestName("org.freedesktop.resolve1"))
        with pytest.raises(
            HostError, match=r"not answer \(nothing for 0\.3 s\); .*systemctl restart systemd-"
        ):
            LinkDns(tmp_path).apply("vpn0", SPLIT)
        monkeypatch.setattr("vpnd.host.dns._TIMEOUT_S", 30.0)
        answering = threading.Thread(target=_say_that_it_took_too_long, args=(owner,))
        answering.start()
        with pytest.raises(
            HostError, match=r"not answer \(timed out\); .*systemctl restart systemd-resolved"
        ):
            LinkDns(tmp_path).apply("vpn0", SPLIT)
        answering.join()


def _say_that_it_took_too_long(owner: DBusConnection) -> None:
    """Answers whoever still waits as the bus does where it waited for a start in vain."""
    for _ in range(2):  # the one who has given up, and the one who waits
        asked = owner.receive(timeout=30)
        while asked.header.message_type is not MessageType.method_call:
            asked = owner.receive(timeout=30)
        owner.send(new_error(asked, "org.freedesktop.DBus.Error.TimedOut", "s", ("timed out",)))
