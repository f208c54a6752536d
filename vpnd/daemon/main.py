"""The daemon's command line, and the process around one instance.

Owns arguments, signals, exit statuses and the order of leaving. What an instance is stands in
instance.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vpnd import __version__
from vpnd.config import load, read_secrets
from vpnd.daemon import log, planes, settings, status
from vpnd.daemon.clock import wall_clock_ns
from vpnd.daemon.instance import Instance
from vpnd.daemon.journal import Event, about
from vpnd.daemon.process import harden
from vpnd.daemon.server import ControlServer
from vpnd.daemon.service import Service
from vpnd.daemon.settings import Settings
from vpnd.daemon.verbs import Verbs
from vpnd.errors import ConfigError, HostError, PlaneError
from vpnd.host.host import Host
from vpnd.protocol.constants import TIMERS, Timers

_log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: the unit does not restart on it
STATUS_INTERVAL_S = 1.0

# What accept() may lack for a while: no reason to end a daemon whose packets flow.
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the daemon, checks a configuration, or tears an instance down; gives the exit status."""
    return run(parse(arguments), TIMERS, wall_clock_ns)


def run(options: argparse.Namespace, timers: Timers, tell_time: Callable[[], int]) -> int:
    """Runs as `main` does, with the protocol's time constants and the wall clock given."""
    chosen = _settings(options)
    log.start_logging(chosen.instance, chosen.log_level)
    try:
        if options.teardown or options.forget:
            return _teardown(chosen) if options.teardown else _forget(chosen)
        gc.disable()  # nothing of what is read here is garbage
        config = load(chosen.instance, chosen.config_file)
        if not options.check:
            harden()
        secrets = read_secrets(config, chosen.credentials)
        if options.check:
            print(f"{chosen.config_file}: no mistakes, {len(config.peers)} peers")
            return 0
        with contextlib.suppress(OSError):
            chosen.failure_note.unlink()
        gc.freeze()
        gc.enable()
        service = Service()
        instance = Instance(chosen, config, secrets, service, timers=timers, wall_clock_ns=tell_time)
        return asyncio.run(_serve(instance))
    except ConfigError as error:
        for mistake in error.mistakes:
            _log.error("%s", mistake, extra=about(Event.MISTAKE))
        if not options.check:
            _note_failure(chosen)
        return EXIT_CONFIG
    except HostError as error:
        _log.error("%s", error, extra=about(Event.REFUSED_BY_MACHINE))
        return EXIT_FAILED
    except PlaneError as error:
        _log.error("%s", error, extra=about(Event.REFUSED_BY_PLANE))
        return EXIT_FAILED
    finally:
        gc.enable()


async def _serve(instance: Instance) -> int:
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    died: list[BaseException] = []

    def unexpected(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in SCARCE:
            # asyncio tries again by itself in a second.
            _log.warning("%s: %s", context["message"], error.strerror, extra=about(Event.SCARCE))
            return
        cause = error if isinstance(error, BaseException) else None
        _log.error("%s", context["message"], exc_info=cause, extra=about(Event.FAULT))
        died.append(cause or RuntimeError(context["message"]))
        leave.set()

    loop.set_exception_handler(unexpected)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    await instance.start()
    _keep_what_lives()
    server = ControlServer(instance.settings.control_socket, Verbs(instance).answer)
    try:
        try:
            await server.start()
        except OSError as error:
            raise HostError(*_no_listening(instance.settings, error)) from error
        instance.service.ready()
        _log.info("ready: %s", status.line(instance), extra=about(Event.READY))
        beat = loop.create_task(_beat(instance))
        await leave.wait()
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat
        instance.service.stopping()
    finally:
        await server.close()
        await instance.stop()
    return EXIT_FAILED if died else 0


def _no_listening(chosen: Settings, error: OSError) -> tuple[str, str]:
    step = f"listen on {chosen.control_socket}"
    match error.errno:
        case errno.EISDIR:
            return step, "a folder stands in its place; move that away"
        case errno.ENOSPC:
            return step, f"{error.strerror}; free some on the file system of {chosen.runtime_dir}"
        case None:  # Python's own refusal: the path is longer than the kernel takes
            return step, f"{error}; choose a shorter --runtime-dir"
        case _:
            return step, f"{error.strerror}; user {os.geteuid()} must be able to write in that folder"


def _keep_what_lives() -> None:
    """Takes what the start made out of the collector's rounds: thousands of peers would make each long."""
    gc.collect()  # netlink messages are full of cycles
    gc.freeze()


async def _beat(instance: Instance) -> None:
    """Tells the service manager that the loop turns, and how the instance is."""
    service = instance.service
    interval_s = min(service.watchdog_interval_s or STATUS_INTERVAL_S, STATUS_INTERVAL_S)
    while True:
        service.watchdog()
        service.status(status.line(instance))
        await asyncio.sleep(interval_s)


def _note_failure(chosen: Settings) -> None:
    """Leaves word for a teardown that follows: the instance was not stopped, it failed."""
    with contextlib.suppress(OSError):
        chosen.failure_note.touch()


def _teardown(chosen: Settings) -> int:
    """Undoes what stands. A kill switch outlives a failure: only a teardown that follows none lifts it."""
    has_failed = chosen.failure_note.exists()
    with contextlib.suppress(OSError):
        chosen.failure_note.unlink()
    host = Host(chosen.state_dir)
    for change in host.remove(chosen.instance, spares_kill_switch=has_failed):
        _log.info("%s: %s", change.step, change.detail, extra=about(Event.REMOVED))
    for warning in host.warnings:
        _log.warning("%s", warning, extra=about(Event.MACHINE_ODD))
    return 0


def _forget(chosen: Settings) -> int:
    if planes.forget(chosen):
        _log.info("the plane has wiped its keys and ended", extra=about(Event.REMOVED))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vpnd", description="Runs one VPN instance in the foreground.")
    parser.add_argument("--instance", required=True, metavar="NAME", type=_instance_name)
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: CONFIG-DIR/NAME.toml")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", default=settings.CONFIG_DIR)
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="default: /run/vpnd/NAME")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="default: /var/lib/vpnd/NAME")
    parser.add_argument("--log-level", choices=log.LEVELS, default="info")
    job = parser.add_mutually_exclusive_group()
    job.add_argument("--check", action="store_true", help="read the configuration, report mistakes, leave")
    job.add_argument("--teardown", action="store_true", help="remove link, addresses and routes, and leave")
    job.add_argument("--forget", action="store_true", help="have the plane wipe its keys and end, and leave")
    parser.add_argument("--version", action="version", version=f"vpnd {__version__}")
    return parser.parse_args(arguments)


def _instance_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise argparse.ArgumentTypeError(f'"{text}" is no instance name: letters, digits, ".", "_" and "-"')
    return text


def _settings(options: argparse.Namespace) -> Settings:
    name = options.instance
    return Settings(
        instance=name,
        config_file=options.config or options.config_dir / f"{name}.toml",
        runtime_dir=options.runtime_dir or settings.RUNTIME_DIR / name,
        state_dir=options.state_dir or settings.STATE_DIR / name,
        log_level=options.log_level,
    )


if __name__ == "__main__":
    sys.exit(main())
