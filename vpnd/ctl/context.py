"""What every verb is given: the operator's global options and the world outside.

Owns no behaviour but finding instances. Clock, sleep and standard input come in here, so
that a test can bring its own.
"""

from __future__ import annotations

import io
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vpnd.ctl.client import Client, connect
from vpnd.ctl.terminal import Terminal
from vpnd.errors import ControlError

RUNTIME_DIR = Path("/run/vpnd")
CONFIG_DIR = Path("/etc/vpnd")
_INSTANCE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")


@dataclass(frozen=True, slots=True)
class Context:
    """The global options, resolved. `instance` is None where -i was left out."""

    terminal: Terminal
    runtime_dir: Path
    config_dir: Path
    instance: str | None
    as_json: bool
    environment: Mapping[str, str]
    stdin: io.BufferedIOBase
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def config_file(self, instance: str) -> Path:
        return self.config_dir / f"{instance}.toml"

    def open_one(self) -> Client:
        """Connects to the instance meant: -i, or the only one that runs. Raises ControlError."""
        if self.instance is not None:
            return self._open_named(self.instance)
        clients = self._open_running()
        if len(clients) == 1:
            return clients[0]
        names = ", ".join(client.instance for client in clients)
        for client in clients:
            client.close()
        raise ControlError("usage", f"several instances run ({names}); name one with -i")

    def open_all(self) -> tuple[Client, ...]:
        """Connects to the instance named by -i, or to all that run; at least one. Raises ControlError."""
        if self.instance is not None:
            return (self._open_named(self.instance),)
        return self._open_running()

    def _open_named(self, instance: str) -> Client:
        check_instance_name(instance)
        try:
            return connect(instance, self.runtime_dir)
        except ControlError as error:
            is_unknown = (
                not (self.runtime_dir / instance).exists() and not self.config_file(instance).exists()
            )
            if error.code == "not-running" and is_unknown:
                raise ControlError(
                    "no-such-instance",
                    f'no instance "{instance}": neither {self.runtime_dir / instance} '
                    f"nor {self.config_file(instance)} exists",
                ) from None
            raise

    def _open_running(self) -> tuple[Client, ...]:
        clients: list[Client] = []
        try:
            for instance in list_instances(self.runtime_dir):
                try:
                    clients.append(connect(instance, self.runtime_dir))
                except ControlError as error:
                    if error.code != "not-running":
                        raise
        except ControlError:
            for client in clients:
                client.close()
            raise
        if not clients:
            raise ControlError("not-running", f"no instance is running in {self.runtime_dir}")
        return tuple(clients)


@dataclass(frozen=True, slots=True)
class Verb:
    """One row of vpnctl's table: its word, its help, its arguments, what it does.

    `run` returns the exit status or raises a VpndError.
    """

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Context, Namespace], int]


def list_instances(runtime_dir: Path) -> tuple[str, ...]:
    """Gives the names that have a folder in the runtime directory, running or not. Raises ControlError."""
    try:
        return tuple(sorted(path.name for path in runtime_dir.iterdir() if path.is_dir()))
    except FileNotFoundError:
        return ()
    except PermissionError:
        raise ControlError(
            "not-permitted", f"{runtime_dir}: permission denied; be root or in vpnd-admin"
        ) from None
    except NotADirectoryError:
        raise ControlError("usage", f"{runtime_dir} is no directory") from None


def check_instance_name(name: str) -> None:
    """Refuses a name that would leave the folders of instances. Raises ControlError "usage"."""
    if not _INSTANCE_NAME.match(name):
        raise ControlError("usage", f'"{name}" is no name of an instance')


def no_arguments(parser: ArgumentParser) -> None:
    """Adds nothing: the verb stands alone."""
    del parser
