"""What stands in the way of a start: one line that names the thing and the remedy, and the right status."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.host.namespace import in_namespace, make_read_only, sh
from tests.lab.lone import DAEMON_USER, Lone, as_user, lone
from tests.lab.namespaces import eventually

CONFIG, MACHINE = 78, 1


def refused(
    instance: Lone, status: int, *words: str, user: int | None = None, capabilities: tuple[str, ...] = ()
) -> None:
    """Starts it, and sees that it ends so, with one line that holds all of `words`."""
    before = as_user(user, *capabilities) if user is not None else ()
    credentials = instance.folder / "credentials"
    env = {"CREDENTIALS_DIRECTORY": str(credentials)} if credentials.exists() else {}
    found, lines = instance.start_fails(before=before, env=env)
    assert found == status, lines
    (line,) = lines
    for word in words:
        assert word in line


@in_namespace
def test_a_missing_key_file() -> None:
    with lone() as instance:
        instance.key.unlink()
        refused(instance, CONFIG, "site.toml:5: local.private_key", str(instance.key), "vpnctl key gen")


@in_namespace
def test_a_key_file_that_others_may_read() -> None:
    with lone() as instance:
        instance.key.chmod(0o644)
        refused(instance, CONFIG, f"{instance.key}: mode 0644", f"chmod 600 {instance.key}")


@in_namespace
def test_a_key_that_is_no_credential_and_that_our_user_cannot_read() -> None:
    with lone() as instance:
        (instance.folder / "credentials").mkdir()
        words = (f"{instance.key}: not handed over", "/etc/vpnd/keys/site.key", "vpnctl key gen")
        refused(instance, CONFIG, *words, user=DAEMON_USER, capabilities=("net_admin",))


@in_namespace
def test_no_tun_device() -> None:
    with lone() as instance:
        sh("mount -t tmpfs none /dev/net")
        refused(instance, MACHINE, "tun link vpn-site", "/dev/net/tun is missing", "modprobe tun")


@in_namespace
def test_no_capability() -> None:
    with lone() as instance:
        for path in (instance.key, instance.run, instance.lib):
            os.chown(path, DAEMON_USER, DAEMON_USER)
        refused(instance, MACHINE, "link vpn-site", "CAP_NET_ADMIN", user=DAEMON_USER)
        assert "vpn-site" not in sh("ip -br link")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("ip link add vpn-site type veth peer name far", ("taken by a veth link", "[interface] name")),
        ("ip tuntap add dev vpn-site mode tap", ('type "tap"', '"tun" is wanted')),
        ("ip tuntap add dev vpn-site mode tun user 1000", ("its owner is 1000", "ip link delete vpn-site")),
        (
            "ip tuntap add dev vpn-site mode tun && ip link set vpn-site alias 'vpnd other'",
            ("instance other", "[interface] name"),
        ),
    ],
    ids=["kind", "type", "owner", "instance"],
)
def test_a_link_of_somebody_else(made: str, words: tuple[str, ...]) -> None:
    @in_namespace
    def story() -> None:
        with lone() as instance:
            sh(made)
            before = sh("ip -d link show vpn-site")
            refused(instance, MACHINE, "take link vpn-site", *words)
            assert sh("ip -d link show vpn-site") == before

    story()


@in_namespace
def test_a_port_in_use() -> None:
    with lone() as instance, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 5180))
        refused(instance, MACHINE, "bind udp 0.0.0.0:5180", "another program has the port", "local.listen")


@in_namespace
def test_no_program_for_the_plane() -> None:
    with lone() as instance:
        for place in (instance.programs / "bin", Path("/usr/lib/vpnd"), Path("/usr/bin")):
            if (place / "vpnd-plane").exists():
                sh(f"mount --bind /dev/null {place}/vpnd-plane")
        try:
            refused(instance, MACHINE, "vpnd-plane", str(instance.programs / "bin"), "install vpnd again")
        finally:
            sh(f"umount {instance.programs}/bin/vpnd-plane")


@in_namespace
def test_a_plane_that_ends_at_once() -> None:
    with lone() as instance:
        program = instance.programs / "bin/vpnd-plane"
        sh(f"mount --bind /bin/false {program}")
        try:
            refused(instance, MACHINE, f"{program} ended at its start with status 1")
        finally:
            sh(f"umount {program}")


@in_namespace
def test_a_runtime_directory_with_too_long_a_name() -> None:
    with lone() as instance:
        instance.run = instance.run / ("x" * 120)
        refused(instance, MACHINE, f"listen on {instance.run}/control.sock", "shorter --runtime-dir")


@in_namespace
def test_a_folder_in_place_of_the_control_socket() -> None:
    with lone() as instance:
        (instance.run / "control.sock").mkdir()
        refused(instance, MACHINE, f"listen on {instance.run}/control.sock", "a folder stands in its place")


@in_namespace
def test_a_runtime_directory_that_cannot_be_made() -> None:
    with lone() as instance:
        instance.run.rmdir()
        make_read_only(str(instance.run.parent))
        try:
            remedy = f"install -d -o 0 {instance.run}"
            refused(instance, MACHINE, f"make the runtime directory {instance.run}: Read-only", remedy)
        finally:
            sh(f"umount {instance.run.parent}")


@in_namespace
def test_a_runtime_directory_that_is_read_only() -> None:
    with lone() as instance:
        make_read_only(str(instance.run))
        try:
            refused(instance, MACHINE, str(instance.run), "read-only", f"ReadWritePaths={instance.run}")
        finally:
            sh(f"umount {instance.run}")


@in_namespace
def test_a_runtime_directory_of_another_user() -> None:
    with lone() as instance:
        os.chown(instance.key, DAEMON_USER, DAEMON_USER)
        remedy = f"chown {DAEMON_USER} {instance.run}"
        refused(instance, MACHINE, str(instance.run), remedy, user=DAEMON_USER, capabilities=("net_admin",))


@in_namespace
def test_a_file_in_place_of_the_runtime_directory() -> None:
    with lone() as instance:
        instance.run.rmdir()
        instance.run.touch()
        refused(instance, MACHINE, str(instance.run), "something else has the name")


@in_namespace
def test_a_full_runtime_directory() -> None:
    """The kernel makes no socket file there; the link that stands is left for the next try."""
    with lone() as instance:
        sh(f"mount -t tmpfs -o nr_inodes=1 none {instance.run}")
        try:
            words = (f"listen on {instance.run}/control.sock", "No space left", "free some")
            refused(instance, MACHINE, *words)
        finally:
            sh(f"umount {instance.run}")


# -- no reason not to start --


@in_namespace
@pytest.mark.parametrize("how", ["full", "read-only", "missing"])
def test_a_state_directory_that_takes_nothing(how: str) -> None:
    """[I12] All stands and packets move; it is said once, and once more when there is room again."""
    with lone() as instance:
        instance.configure("[routing]\nforward = true\n")
        _spoil(instance.lib, how)
        try:
            with instance.running() as vpnd:
                assert "10.255.0.2 dev vpn-site" in sh("ip route")
                assert sh("sysctl -n net.ipv4.conf.vpn-site.forwarding") == "1\n"
                (warning,) = [line for line in vpnd.lines("WARNING") if "record of the machine" in line]
                assert f"{instance.lib}/host.json" in warning
                assert "trying again" in warning
            # At its end it wants to write down when it last shook hands.
            refusals = [line for line in vpnd.lines("WARNING") if "last-timestamp cannot be written" in line]
            assert len(refusals) <= 1
            assert vpnd.process.returncode == 0
            assert vpnd.lines("ERROR") == []
        finally:
            _mend(instance.lib, how)


@in_namespace
def test_a_state_directory_that_has_room_again_is_written() -> None:
    """[I12] What a teardown needs is not lost."""
    with lone() as instance:
        instance.configure("[routing]\nforward = true\n")
        _spoil(instance.lib, "full")
        try:
            with instance.running() as vpnd:
                (instance.lib / "filler").unlink()
                said = "the record of the machine can be written again"
                eventually(lambda: said in vpnd.lines("INFO"), within_s=40, what=said)
            assert (instance.lib / "host.json").stat().st_size > 0
            assert list(instance.lib.glob("*.new")) == []
        finally:
            _mend(instance.lib, "full")


def _spoil(directory: Path, how: str) -> None:
    match how:
        case "full":
            sh(f"mount -t tmpfs -o size=4k none {directory}")
            (directory / "filler").write_bytes(bytes(4096))
        case "read-only":
            make_read_only(str(directory))
        case "missing":
            directory.rmdir()
            make_read_only(str(directory.parent))


def _mend(directory: Path, how: str) -> None:
    sh(f"umount {directory.parent if how == 'missing' else directory}")
