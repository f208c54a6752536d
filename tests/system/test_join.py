"""A fresh machine joins a hub by its token, and is shut out, where the units allow both what they have to."""

from __future__ import annotations

from tests.lab.namespaces import eventually
from tests.system.pair import OUTER, PORT, TUNNEL, Pair


def test_from_token_to_ping_with_one_command_on_each_side(pair: Pair) -> None:
    """The unit runs and is enabled; a block ends it at once; what vpnd knows outlives its restart."""
    hub, client = pair.b.machine, pair.a.machine
    client.run("systemctl disable --now vpnd@site")
    token = hub.output(f"vpnctl peer invite anna --endpoint {OUTER['b']}:{PORT} 2>/dev/null")
    client.write("/root/token", token + "\n", mode=0o600)
    client.run("vpnctl join - office < /root/token")
    eventually(lambda: client.host.pings(TUNNEL["b"]), within_s=20, what="the first ping")
    assert client.output("systemctl is-enabled vpnd@office; stat -c '%a %U' /etc/vpnd/keys/office.key") == (
        "enabled\n600 root"
    )
    hub.run("systemctl restart vpnd@site")
    eventually(lambda: client.host.pings(TUNNEL["b"]), within_s=20, what="the ping after the hub's restart")
    hub.run("vpnctl -i site peer block anna")
    assert not client.host.pings(TUNNEL["b"])
    assert "disabled" in hub.output("vpnctl -i site status anna; true")
    hub.run("vpnctl -i site peer unblock anna")
    eventually(lambda: client.host.pings(TUNNEL["b"]), within_s=30, what="the ping of one let in again")
    for machine in (hub, client):
        assert token[80:120] not in machine.output("journalctl --no-pager")
