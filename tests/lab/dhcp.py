"""An address by DHCP across a link: dnsmasq on one side, udhcpc on the other."""

from __future__ import annotations

from ipaddress import IPv4Interface

from tests.lab.namespaces import Host, eventually

_BOUND = """\
#!/bin/sh
case "$1" in bound|renew)
ip addr add "$ip/$mask" dev "$interface" valid_lft "$lease" preferred_lft "$lease" ;; esac
"""


def lease(server: Host, server_link: str, client: Host, client_link: str, address: IPv4Interface) -> None:
    """Gives the client's link the one address that the server has to give."""
    server.start(
        *("dnsmasq", "--keep-in-foreground", "--port=0", f"--interface={server_link}", "--bind-interfaces"),
        *(f"--dhcp-range={address.ip},{address.ip},{address.netmask},1h", "--dhcp-authoritative"),
        *(f"--dhcp-leasefile={server.folder}/leases", "--no-ping", "--conf-file=/dev/null", "--pid-file="),
        "--user=root",
        log="dnsmasq.log",
    )
    eventually(lambda: ":67 " in server.output("ss -lun"), what="dnsmasq listening")
    script = client.folder / "leased"
    script.write_text(_BOUND)
    script.chmod(0o700)
    client.run(f"udhcpc -i {client_link} -f -n -q -t 5 -T 1 -s {script}", timeout_s=20)
    assert str(address) in client.output(f"ip -br addr show dev {client_link}")
