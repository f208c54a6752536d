"""A machine joins a hub by a token: one command there, one command here, and a ping.

client 10.9.0.2 ─── 10.9.0.1 hub, 10.8.0.1/24 and fd08::1/64 in the tunnel
"""

from __future__ import annotations

import json

from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.pair import PORT
from tests.lab.vpnd import BIN, Vpnd


def build(lab: Lab, gives: str = "") -> tuple[Vpnd, Vpnd]:
    """The hub runs, and asks strangers to knock; of the client there is nothing but the machine."""
    hub, client = lab.host("hub"), lab.host("client")
    lab.cable(hub, "eth0", client, "eth0")
    hub.run("ip addr add 10.9.0.1/24 dev eth0")
    client.run("ip addr add 10.9.0.2/24 dev eth0")
    vpnd = Vpnd(hub, "hub")
    knock = vpnd.new_psk("knock")
    vpnd.configure(f"""\
[interface]
addresses = ["10.8.0.1/24", "fd08::1/64"]
[local]
listen = ["10.9.0.1:{PORT}"]
knock = "{knock}"
{gives}""")
    vpnd.start()
    joining = Vpnd(client, "office")
    joining.key.file.unlink()
    return vpnd, joining


def invite(hub: Vpnd, words: str) -> str:
    return hub.ctl(f"peer invite {words}").stdout.splitlines()[0]


def join(client: Vpnd, token: str, *, name: str = "office") -> tuple[int, str]:
    """Gives the exit status and what was said; the token is in no list of processes."""
    command = f"{BIN}/vpnctl --config-dir {client.config_dir} join - {name} --no-start"
    done = client.host.run(command, check=False, text=token + "\n")
    assert token not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_from_token_to_ping_and_never_again(lab: Lab) -> None:
    """The key stays where it was made; a token that was used, expired or forged is refused and logged."""
    hub, client = build(lab)
    token = invite(hub, "anna --route 10.20.0.0/16")
    peer_file = hub.config_dir / "hub.d/anna.toml"
    once = hub.peer_now("anna")["public_key"]
    assert hub.peer_now("anna")["reason"].startswith("is yet to join, until 2")
    assert hub.peer_now("anna")["networks"] == ["10.8.0.2/32", "fd08::2/128"]
    code, said = join(client, token)
    assert (code, said) == (0, f"office: joined; {client.config_file} is written\n")
    key_file = client.config_dir / "keys/office.key"
    assert [path.stat().st_mode & 0o777 for path in (key_file, key_file.parent)] == [0o600, 0o700]
    own = client.host.output(f"{BIN}/vpnctl key pub {key_file}").strip()
    assert hub.peer_now("anna")["public_key"] == own != once
    client.start()
    client.wait_up()
    assert client.host.pings("10.8.0.1", count=3)
    assert client.host.pings("fd08::1")
    assert hub.host.pings("10.8.0.2")
    assert "10.20.0.0/16 dev vpn-office" in client.host.output("ip route")
    # what joined is still known after a restart and a reload, and the operator's file is as it was
    hub.stop()
    hub.start()
    hub.ctl("reload")
    assert hub.peer_now("anna")["public_key"] == own
    assert once in peer_file.read_text()
    eventually(lambda: client.host.pings("10.8.0.1"), within_s=20, what="the tunnel after the hub's restart")
    # used
    assert join(client, token, name="again")[0] == 6
    assert "handshake from 10.9.0.2" in hub.log()
    assert hub.peer_now("anna")["public_key"] == own
    # the same machine once more, its file lost: its key is known
    client.stop()
    client.config_file.unlink()
    assert join(client, token)[0] == 0
    # expired
    expired = invite(hub, "boris --expires 1s")
    eventually(lambda: hub.peer_now("boris")["state"] == "disabled", what="the invitation's end")
    code, said = join(client, expired, name="late")
    assert (code, "the token expired at" in said) == (1, True)
    assert hub.peer_now("boris")["reason"] == "its invitation is over"
    assert "the invitation has expired" in hub.log()
    # damaged
    code, said = join(client, token[:-3] + "AAA", name="forged")
    assert (code, "the token is damaged" in said) == (2, True)
    # no secret is in any log
    for each in (token, expired):
        assert each[60:90] not in hub.log() + client.log()
    hub.assert_no_error()
    client.assert_no_error()


POOL = """\
[pool]
ipv4 = "10.8.0.0/24"
ipv6 = "fd08::/64"
[push]
routes = ["10.20.0.0/16"]
mtu = 1380
[groups.ping]
allow = ["icmp"]
"""


def routes(host: Host) -> set[str]:
    """The routes into the tunnel that are vpnd's, and not an address's."""
    return {each["dst"] for each in json.loads(host.output("ip -j route show proto 176"))}


def test_a_pool_gives_whoever_joins_all_it_gives_with_the_first_handshake(lab: Lab) -> None:
    """No reload of the hub lies between; what it pushes later is followed, and a group has its member."""
    hub, client = build(lab, POOL)
    leased = hub.new_key("other").public
    hub.ctl(f"peer add berlin --public-key {leased}")
    before = hub.peer_now("berlin")["networks"]
    token = invite(hub, "anna --group ping")
    assert hub.peer_now("berlin")["networks"] == before == ["10.8.0.2/32", "fd08::2/128"]
    # What the token's key was given is the peer's, and survives the change of keys.
    assert hub.peer_now("anna")["networks"] == ["10.8.0.3/32", "fd08::3/128"]
    code, said = join(client, token)
    assert code == 0, said
    client.start()
    client.wait_up()
    status = client.status()
    assert status["link"]["addresses"] == ["10.8.0.3/24", "fd08::3/64"]
    assert (status["link"]["mtu"], status["health"]) == (1380, [])
    assert client.peer_now("hub")["handshakes"] == 1
    assert routes(client.host) == {"10.20.0.0/16"}
    assert client.host.pings("10.8.0.1")
    assert hub.host.pings("fd08::3")
    assert hub.log().count("reloaded") == 2  # by the two commands before the join
    own = hub.peer_now("anna")["public_key"]
    assert f'[lease."{own}"]\nname = "anna"\n' in (hub.state_dir / "leases.toml").read_text()
    # A reload finds nothing to do: all that it would do was done.
    assert hub.ctl("reload --dry-run").stdout == "nothing to change\n"
    assert "ping: anna" in hub.ctl("show groups").stdout
    # What is pushed anew comes without a handshake.
    hub.config_file.write_text(hub.config_file.read_text().replace("10.20.0.0/16", "10.20.8.0/21"))
    hub.ctl("reload")
    eventually(lambda: routes(client.host) == {"10.20.8.0/21"}, what="the other route")
    assert client.peer_now("hub")["handshakes"] == 1
    # The same machine, invited by another name: its key has the address it had, and the table follows.
    client.stop()
    client.teardown()
    client.config_file.unlink()
    hub.ctl("peer remove anna")
    token = invite(hub, "boris --group ping")
    assert hub.peer_now("boris")["networks"] == ["10.8.0.4/32", "fd08::4/128"]
    assert join(client, token)[0] == 0
    client.start()
    client.wait_up()
    assert hub.peer_now("boris")["networks"] == ["10.8.0.3/32", "fd08::3/128"]
    assert client.host.pings("10.8.0.1")
    # Renamed it notices nothing; with another key the old one is a stranger's, and the address stays.
    hub.ctl("peer rename boris bob")
    assert client.host.pings("10.8.0.1")
    assert client.peer_now("hub")["handshakes"] == 1
    other = client.new_key("other")
    hub.ctl(f"peer rekey bob --public-key {other.public}")
    assert not client.host.pings("10.8.0.1")
    other.file.replace(client.config_dir / "keys/office.key")
    client.ctl("reload")
    eventually(lambda: client.host.pings("10.8.0.1"), what="the ping under the other key")
    assert hub.peer_now("bob")["public_key"] == other.public
    assert hub.peer_now("bob")["networks"] == ["10.8.0.3/32", "fd08::3/128"]
    # Told of the next key, the hub still knows it by this one.
    hub.ctl(f"peer rekey bob --public-key {client.new_key('third').public} --overlap")
    assert client.host.pings("10.8.0.1")
    assert hub.peer_now("bob")["state"] == "up"
    hub.assert_no_error()
    client.assert_no_error()
