"""vpnd without root: a user of its own with CAP_NET_ADMIN and nothing else, a plane with nothing at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.namespace import addresses, in_namespace, machine, make_read_only, sh
from tests.lab.lone import DAEMON_USER, FORWARDING, PLANE_USER, Lone, as_user, lone

AS_DAEMON = as_user(DAEMON_USER, "net_admin")
STRANGER, ADMINS = 64103, 64104


@contextmanager
def as_a_unit_has_it() -> Iterator[Lone]:
    """The key is a credential, the folders belong to the daemon, the configuration to root."""
    with lone() as instance:
        instance.configure(FORWARDING)
        credentials = instance.folder / "credentials"
        credentials.mkdir()
        instance.key.rename(credentials / "site.key")
        for path in (credentials, credentials / "site.key", instance.run, instance.lib):
            os.chown(path, DAEMON_USER, DAEMON_USER)
        credentials.chmod(0o500)
        yield instance


def environment(instance: Lone) -> dict[str, str]:
    return {"CREDENTIALS_DIRECTORY": str(instance.folder / "credentials")}


def ask(instance: Lone, user: int, *words: str, group: int | None = None) -> subprocess.CompletedProcess[str]:
    program = [str(instance.programs / "bin/python"), "-P", str(instance.programs / "bin/vpnctl")]
    command = [*program, "-i", "site", "--runtime-dir", str(instance.run.parent)]
    before = as_user(user)
    if group is not None:
        before = [word if word != "--clear-groups" else f"--groups={group}" for word in before]
    return subprocess.run(
        [*before, *command, *words], capture_output=True, text=True, timeout=30, check=False
    )


def teardown(instance: Lone) -> None:
    subprocess.run([*AS_DAEMON, *instance.command("--teardown")], timeout=30, check=True)


def capabilities(pid: int) -> set[str]:
    """All five sets of a process, as the kernel writes them."""
    return set(re.findall(r"^Cap\w+:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


@in_namespace
def test_all_that_vpnd_does_needs_one_capability_and_no_root() -> None:
    """[E11] Link, addresses, routes, forwarding, masquerading; and all of it is gone afterwards."""
    with as_a_unit_has_it() as instance:
        before = machine()
        with instance.plane_of_its_own(DAEMON_USER, PLANE_USER) as plane:
            with instance.running(before=AS_DAEMON, env=environment(instance)) as vpnd:
                assert capabilities(vpnd.process.pid) == {f"{1 << 12:016x}"}
                assert capabilities(plane.pid) == {"0" * 16}
                assert vpnd.lines("WARNING") == []
                assert addresses("vpn-site") == {"10.255.0.1/30", "fd00::1/64"}
                assert "10.255.0.2 dev vpn-site" in sh("ip route")
                assert sh("sysctl -n net.ipv4.conf.vpn-site.forwarding") == "1\n"
                assert "masquerade" in sh("nft list table inet vpnd-site")
                status = json.loads(ask(instance, DAEMON_USER, "--json", "status").stdout)
                assert status["instances"][0]["instance"] == "site"
                assert ask(instance, STRANGER, "status").returncode > 1
                assert (instance.run / "control.sock").stat().st_uid == DAEMON_USER
            assert vpnd.process.returncode == 0
            assert plane.poll() is None
            for written in (instance.lib / "host.json", instance.run / "fwmark"):
                assert written.stat().st_uid == DAEMON_USER
        teardown(instance)
        assert machine() == before


@in_namespace
def test_a_restart_finds_its_plane_again() -> None:
    with as_a_unit_has_it() as instance, instance.plane_of_its_own(DAEMON_USER, PLANE_USER) as plane:
        for _ in range(2):
            with instance.running(before=AS_DAEMON, env=environment(instance)) as vpnd:
                assert vpnd.lines("WARNING") == []
                children = Path(f"/proc/{vpnd.process.pid}/task/{vpnd.process.pid}/children").read_text()
                assert children == ""
        assert plane.poll() is None


@in_namespace
def test_a_plane_that_does_not_let_our_user_in_is_named_with_the_rule() -> None:
    """Its socket belongs to somebody else by mistake, though anybody may write to it."""
    with as_a_unit_has_it() as instance, instance.plane_of_its_own(STRANGER, PLANE_USER):
        (instance.run / "plane.sock").chmod(0o666)
        status, (line,) = instance.start_fails(before=AS_DAEMON, env=environment(instance))
        assert status == 1
        assert f"{instance.run}/plane.sock: the plane closed the connection" in line
        assert f"user {DAEMON_USER}" in line
        assert "the socket's owner" in line


@in_namespace
def test_ipv6_forwarding_alone_needs_a_place_to_write_under_proc_sys() -> None:
    """ProtectKernelTunables=yes with ReadWritePaths=/proc/sys/net/ipv6/conf; for IPv4 there is netlink."""
    with as_a_unit_has_it() as instance:
        instance.configure(FORWARDING)
        sh("mount --bind /proc/sys/net/ipv6/conf /mnt")
        make_read_only("/proc/sys")
        status, (line,) = instance.start_fails(before=AS_DAEMON, env=environment(instance))
        assert status == 1
        assert "ReadWritePaths=/proc/sys/net/ipv6/conf" in line
        assert sh("sysctl -n net.ipv4.conf.vpn-site.forwarding") == "1\n"
        sh("mount --bind /mnt /proc/sys/net/ipv6/conf")
        with instance.running(before=AS_DAEMON, env=environment(instance)) as vpnd:
            assert vpnd.lines("ERROR") == []
        teardown(instance)


@in_namespace
@pytest.mark.parametrize("type_", ["tun", "tap"])
def test_without_forwarding_proc_sys_may_be_read_only_for_tun(type_: str) -> None:
    """A tap link must not listen to router advertisements, and only a write there tells the kernel so."""
    with as_a_unit_has_it() as instance:
        instance.configure()
        text = instance.config.read_text().replace("[interface]", f'[interface]\ntype = "{type_}"')
        if type_ == "tap":
            text = text.replace('networks = ["10.255.0.2/32"]', "")
        instance.config.write_text(text)
        sh("mount --bind /proc/sys/net/ipv6/conf /mnt")
        make_read_only("/proc/sys")
        if type_ == "tap":
            status, (line,) = instance.start_fails(before=AS_DAEMON, env=environment(instance))
            assert status == 1
            assert "accept_ra" in line
            assert "ReadWritePaths=/proc/sys/net/ipv6/conf" in line
            sh("mount --bind /mnt /proc/sys/net/ipv6/conf")
        with instance.running(before=AS_DAEMON, env=environment(instance)) as vpnd:
            assert vpnd.lines("ERROR") == []
        teardown(instance)


@contextmanager
def admins(*members: str) -> Iterator[None]:
    """Lets the machine know the group vpnd-admin and a user named "operator-of-vpnd"."""
    with tempfile.TemporaryDirectory() as folder:
        for name, line in (
            ("group", f"vpnd-admin:x:{ADMINS}:{','.join(members)}\n"),
            ("passwd", f"operator-of-vpnd:x:{STRANGER}:{STRANGER}::/:/bin/false\n"),
        ):
            lines = Path("/etc", name).read_text().splitlines(keepends=True)
            kept = [each for each in lines if not each.startswith("vpnd-admin:")]
            Path(folder, name).write_text("".join(kept) + line)
            sh(f"mount --bind {folder}/{name} /etc/{name}")
        try:
            yield
        finally:
            sh("umount /etc/group /etc/passwd")


@in_namespace
def test_members_of_the_group_control_it() -> None:
    """The daemon's user is given the group by the service manager (SupplementaryGroups=)."""
    as_member = [word if word != "--clear-groups" else f"--groups={ADMINS}" for word in AS_DAEMON]
    with admins("operator-of-vpnd"), as_a_unit_has_it() as instance:
        with instance.running(before=as_member, env=environment(instance)) as vpnd:
            control = (instance.run / "control.sock").stat()
            assert (control.st_gid, control.st_mode & 0o777) == (ADMINS, 0o660)
            assert ask(instance, STRANGER, "status", group=ADMINS).returncode == 1, "no peer is up"
            assert ask(instance, STRANGER, "status").returncode > 1
            assert vpnd.lines("WARNING") == []
        teardown(instance)


@in_namespace
def test_a_daemon_outside_of_the_group_says_whom_it_shuts_out() -> None:
    with admins("operator-of-vpnd"), as_a_unit_has_it() as instance:
        with instance.running(before=AS_DAEMON, env=environment(instance)) as vpnd:
            assert vpnd.lines("WARNING") == [
                f"{instance.run}/control.sock is closed to vpnd-admin: vpnd's own user is not in that group"
            ]
            assert (instance.run / "control.sock").stat().st_mode & 0o777 == 0o600
        teardown(instance)
