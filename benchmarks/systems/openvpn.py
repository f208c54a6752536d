"""OpenVPN: TLS between two peers that know each other's certificate, AES-256-GCM, no kernel module."""

from __future__ import annotations

from benchmarks import pair
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab


class OpenVpn(System):
    name = "openvpn"
    about = "AES-256-GCM over UDP, in user space (no DCO)"
    package = "openvpn"

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        left_print, right_print = _certify(made.left), _certify(made.right)
        right_role = ("--tls-server", "--dh", "none")
        left_role = ("--tls-client", "--remote", RIGHT)
        _start(made.right, right_role, (TUNNEL_RIGHT, TUNNEL_LEFT), left_print)
        _start(made.left, left_role, (TUNNEL_LEFT, TUNNEL_RIGHT), right_print)
        return pair.tunnelled(made)


def _certify(host: Host) -> str:
    """Makes the host a certificate of its own and gives the certificate's fingerprint."""
    key, certificate = host.folder / "key.pem", host.folder / "cert.pem"
    host.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN={host} -keyout {key} -out {certificate}"
    )
    shown = host.output(f"openssl x509 -in {certificate} -noout -fingerprint -sha256")
    return shown.strip().split("=")[1]


def _start(host: Host, role: tuple[str, ...], addresses: tuple[str, str], other_print: str) -> None:
    host.start(
        *("openvpn", "--dev", "tun0", "--dev-type", "tun", "--proto", "udp4", "--port", "1194", *role),
        *("--ifconfig", *addresses, "--tun-mtu", str(MTU), "--peer-fingerprint", other_print),
        *("--cert", host.folder / "cert.pem", "--key", host.folder / "key.pem"),
        *("--data-ciphers", "AES-256-GCM", "--disable-dco"),
        log="openvpn.log",
    )
