"""What the journal gets of a running vpnd, by a real systemd-journald that nobody else writes to."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.namespace import in_namespace, sh
from tests.lab.lone import lone
from tests.lab.namespaces import eventually
from vpnd.daemon.journal import Event

JOURNALD = "/lib/systemd/systemd-journald"
CATALOG = Path(__file__).resolve().parents[2] / "systemd" / "vpnd.catalog"
JOURNAL = "/run/log/journal"
WARNING, INFO, ERROR = "4", "6", "3"


@contextmanager
def journald() -> Iterator[None]:
    """Runs a journald of the test's own, with our catalog."""
    for place in ("/run", "/var/lib/systemd/catalog"):
        sh(f"mkdir -p {place} && mount -t tmpfs none {place}")
    sh("mkdir -p /run/systemd/journal /run/log/journal /usr/lib/systemd/catalog")
    machine_id = Path("/run/machine-id")
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    if not Path("/etc/machine-id").exists():
        Path("/etc/machine-id").touch()
    sh(f"mount --bind {machine_id} /etc/machine-id")
    sh("mount -t tmpfs none /usr/lib/systemd/catalog")
    sh(f"cp {CATALOG} /usr/lib/systemd/catalog/ && journalctl --update-catalog")
    process = subprocess.Popen([JOURNALD], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(Path("/run/systemd/journal/socket").exists, what="journald's socket")
        yield
    finally:
        process.terminate()
        process.wait(20)


def with_journal_as_stderr(log: Path) -> list[str]:
    """The words before a command that give it a stderr that $JOURNAL_STREAM names."""
    script = f'exec 2>>{shlex.quote(str(log))}; JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
    return ["sh", "-c", script, "sh"]


def told(event: Event) -> list[dict[str, str]]:
    """The journal's lines of one kind about the instance."""
    sh("journalctl --sync || true")
    lines = sh(f"journalctl -D {JOURNAL} -o json VPND_INSTANCE=site MESSAGE_ID={event.value}").splitlines()
    return [json.loads(line) for line in lines]


@in_namespace
def test_lines_come_with_their_kind_and_priority_and_the_catalog_explains_them() -> None:
    with journald(), lone() as instance:
        stderr = instance.folder / "stderr"
        with instance.running(before=with_journal_as_stderr(stderr)):
            eventually(lambda: bool(told(Event.READY)), what="the line that it is ready")
            (ready,) = told(Event.READY)
            assert ready["MESSAGE"] == "ready: 0 of 1 peers up"
            assert ready["PRIORITY"] == INFO
            assert ready["SYSLOG_IDENTIFIER"] == "vpnd"
            assert not [name for name in ready if name != name.upper()]
        shown = sh(f"journalctl -D {JOURNAL} -x MESSAGE_ID={Event.READY.value}")
        assert "Subject: Instance site is ready" in shown
        assert "vpnctl -i site status" in shown
        assert stderr.read_text() == "", "said twice"


@in_namespace
def test_a_line_about_a_peer_names_it_in_a_field() -> None:
    with journald(), lone() as instance:
        text = instance.config.read_text().replace("networks", 'endpoint = "nowhere.invalid:5180"\nnetworks')
        instance.config.write_text(text)
        with instance.running(before=with_journal_as_stderr(instance.folder / "stderr")):
            eventually(lambda: bool(told(Event.NAME_UNRESOLVED)), within_s=30, what="the line about the name")
        line = told(Event.NAME_UNRESOLVED)[0]
        assert (line["VPND_PEER"], line["PRIORITY"]) == ("berlin", WARNING)
        assert line["MESSAGE"].startswith("berlin: nowhere.invalid does not resolve")
        shown = sh(f"journalctl -D {JOURNAL} -x VPND_PEER=berlin")
        assert "Subject: The endpoint of peer berlin does not resolve" in shown


@in_namespace
def test_each_mistake_is_an_error_of_its_own() -> None:
    with journald(), lone() as instance:
        instance.config.write_text('[interface]\nmtu = 99\naddresses = ["10.0.0.300/24"]\n')
        stderr = instance.folder / "stderr"
        status, lines = instance.start_fails(before=with_journal_as_stderr(stderr))
        assert (status, lines) == (78, [])
        eventually(lambda: len(told(Event.MISTAKE)) >= 2, what="the mistakes")
        for place in ("site.toml:2: ", "site.toml:3: "):
            (line,) = [line for line in told(Event.MISTAKE) if place in line["MESSAGE"]]
            assert line["PRIORITY"] == ERROR
