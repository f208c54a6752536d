"""What one instance remembers between its lives: the handshake's clock mark, the peers' endpoints, since
when keys are being replaced, the addresses it gave, what it was told by those that give it some, what it
pushed to whom, and who joined by invitation.

Owns a few small files in the state directory. A missing, truncated or garbled one costs a warning, never
the start. Nothing secret is in them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from vpnd.daemon.journal import Event, about
from vpnd.daemon.leases import Lease, read_leases, write_leases
from vpnd.daemon.pushes import Told, read_told, write_told
from vpnd.endpoint import Endpoint, parse_endpoint
from vpnd.keys import PublicKey

_log = logging.getLogger(__name__)

TIMESTAMP_WRITE_INTERVAL_S = 10.0  # protocol section 5.1: rewritten at most so often
ENDPOINTS_WRITE_INTERVAL_S = 30.0  # protocol section 8
_FILE_LIMIT = 16 * 2**20  # bytes read back at most


class StateDirectory:
    """The files of one instance. Every write replaces a file whole; a write that the disk refuses is
    logged once, and tried again whenever one is due until it succeeds.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._timestamp_file = directory / "last-timestamp"
        self._endpoints_file = directory / "endpoints.json"
        self._previous_keys_file = directory / "previous-keys.json"
        self._leases_file = directory / "leases.toml"
        self._told_file = directory / "told.json"
        self._written_leases: str | None = None
        self._written_told: str | None = None
        self._pushed_file = directory / "pushed.json"
        self._written_pushed: dict[PublicKey, str] = {}
        self._enrolled_file = directory / "enrolled.json"
        self._written_timestamp_ns = 0
        self._written_endpoints: dict[PublicKey, Endpoint] = {}
        self._written_previous_keys: dict[PublicKey, float] = {}
        self._timestamp_due = 0.0
        self._endpoints_due = 0.0
        self._refused: set[Path] = set()  # files that the disk would not take last time

    @property
    def unwritable(self) -> tuple[str, ...]:
        """The files that the disk would not take last time."""
        return tuple(sorted(str(file) for file in self._refused))

    def load_timestamp_ns(self) -> int:
        """Tells the last handshake timestamp used, in ns since 1970; 0 when none is known."""
        text = self._read(self._timestamp_file)
        if text is None:
            return 0
        if not (text.strip().isascii() and text.strip().isdigit() and len(text) < 24):
            what = "%s holds no timestamp and is started anew"
            _log.warning(what, self._timestamp_file, extra=about(Event.STATE_SPOILT))
            return 0
        self._written_timestamp_ns = int(text)
        return self._written_timestamp_ns

    def load_endpoints(self) -> dict[PublicKey, Endpoint]:
        """Tells where each peer was last seen."""
        text = self._read(self._endpoints_file)
        if text is None:
            return {}
        endpoints: dict[PublicKey, Endpoint] = {}
        try:
            for key, place in json.loads(text).items():
                endpoint = parse_endpoint(place)
                if isinstance(endpoint, Endpoint):
                    endpoints[PublicKey.from_base64(key)] = endpoint
        except (ValueError, TypeError, AttributeError, RecursionError):
            what = "%s is no endpoint cache and is started anew"
            _log.warning(what, self._endpoints_file, extra=about(Event.STATE_SPOILT))
            return {}
        return endpoints

    def load_previous_keys(self) -> dict[PublicKey, float]:
        """Tells since when each key is a previous one, in seconds since 1970."""
        text = self._read(self._previous_keys_file)
        if text is None:
            return {}
        try:
            found = {PublicKey.from_base64(key): float(began) for key, began in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            what = "%s tells of no keys and is started anew"
            _log.warning(what, self._previous_keys_file, extra=about(Event.STATE_SPOILT))
            return {}
        self._written_previous_keys = dict(found)
        return found

    def store_previous_keys(self, began: Mapping[PublicKey, float]) -> None:
        """Writes since when each key is a previous one, if that changed."""
        if began == self._written_previous_keys:
            return
        content = {str(key): moment for key, moment in began.items()}
        if self._write(self._previous_keys_file, json.dumps(content, indent=1) + "\n"):
            self._written_previous_keys = dict(began)

    def load_leases(self) -> dict[PublicKey, Lease]:
        """Tells which addresses were given."""
        text = self._read(self._leases_file)
        if text is None:
            return {}
        leases, spoilt = read_leases(text)
        for what in spoilt:
            _log.warning("%s: %s; going on without", self._leases_file, what, extra=about(Event.STATE_SPOILT))
        self._written_leases = None if spoilt else text
        return leases

    def store_leases(self, leases: Mapping[PublicKey, Lease]) -> None:
        """Writes the addresses that are given, if they changed; they outlast a power cut from then on."""
        text = write_leases(leases)
        is_empty = not leases and self._written_leases is None
        if (
            text != self._written_leases
            and not is_empty
            and self._write(self._leases_file, text, is_lasting=True)
        ):
            self._written_leases = text

    def load_told(self) -> dict[PublicKey, Told]:
        """Tells what peers pushed to us."""
        text = self._read(self._told_file)
        if text is None:
            return {}
        try:
            found = read_told(text)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            what = "%s tells nothing of what peers push and is started anew"
            _log.warning(what, self._told_file, extra=about(Event.STATE_SPOILT))
            return {}
        self._written_told = text
        return found

    def store_told(self, told: Mapping[PublicKey, Told]) -> None:
        """Writes what peers pushed to us, if that changed."""
        text = write_told(told)
        is_empty = not told and self._written_told is None
        if text != self._written_told and not is_empty and self._write(self._told_file, text):
            self._written_told = text

    def load_pushed(self) -> dict[PublicKey, str]:
        """Tells the digest of what each peer knows of our pushes."""
        text = self._read(self._pushed_file)
        if text is None:
            return {}
        try:
            found = {PublicKey.from_base64(key): str(each) for key, each in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            what = "%s tells nothing of what was pushed and is started anew"
            _log.warning(what, self._pushed_file, extra=about(Event.STATE_SPOILT))
            return {}
        self._written_pushed = dict(found)
        return found

    def store_pushed(self, digests: Mapping[PublicKey, str]) -> None:
        """Writes what each peer knows of our pushes, if that changed."""
        if digests == self._written_pushed:
            return
        content = {str(key): each for key, each in digests.items()}
        if self._write(self._pushed_file, json.dumps(content, indent=1) + "\n"):
            self._written_pushed = dict(digests)

    def load_enrolled(self) -> dict[PublicKey, PublicKey]:
        """Tells the own key of each peer that joined, by the one-time key of its token."""
        text = self._read(self._enrolled_file)
        try:
            pairs = json.loads(text or "{}").items()
            return {PublicKey.from_base64(once): PublicKey.from_base64(own) for once, own in pairs}
        except (ValueError, TypeError, AttributeError, RecursionError):
            what = "%s tells of no peers that joined; they have to be invited anew"
            _log.warning(what, self._enrolled_file, extra=about(Event.STATE_SPOILT))
            return {}

    def store_enrolled(self, enrolled: Mapping[PublicKey, PublicKey]) -> bool:
        """Writes who joined, beyond a loss of power; tells whether the disk has it."""
        content = {str(once): str(own) for once, own in enrolled.items()}
        return self._write(self._enrolled_file, json.dumps(content, indent=1) + "\n", is_lasting=True)

    def has_endpoint(self, peer: PublicKey, endpoint: Endpoint) -> bool:
        """Tells whether this is what was written of the peer."""
        return self._written_endpoints.get(peer) == endpoint

    def is_due(self, now: float, *, has_moved: bool) -> bool:
        """Tells whether `store` would write now; `has_moved`: an endpoint is not what was written of it."""
        return now >= self._timestamp_due or (has_moved and now >= self._endpoints_due)

    def store(
        self, timestamp_ns: int, endpoints: Mapping[PublicKey, Endpoint], now: float, *, at_once: bool = False
    ) -> bool:
        """Writes what changed, not more often than the intervals above unless `at_once`.

        Tells whether the endpoints stand there as they are.
        """
        if at_once or now >= self._timestamp_due:
            self._timestamp_due = now + TIMESTAMP_WRITE_INTERVAL_S
            if timestamp_ns != self._written_timestamp_ns and self._write(
                self._timestamp_file, f"{timestamp_ns}\n"
            ):
                self._written_timestamp_ns = timestamp_ns
        is_written = endpoints == self._written_endpoints
        if not is_written and (at_once or now >= self._endpoints_due):
            self._endpoints_due = now + ENDPOINTS_WRITE_INTERVAL_S
            content = {str(key): str(place) for key, place in endpoints.items()}
            is_written = self._write(self._endpoints_file, json.dumps(content, indent=1) + "\n")
            if is_written:
                self._written_endpoints = dict(endpoints)
        return is_written

    def _read(self, file: Path) -> str | None:
        try:
            with file.open("rb") as stream:
                return stream.read(_FILE_LIMIT).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            what = "%s cannot be read (%s); going on without it"
            _log.warning(what, file, error.strerror, extra=about(Event.STATE_SPOILT))
            return None

    def _write(self, file: Path, text: str, *, is_lasting: bool = False) -> bool:
        """Replaces a file; `is_lasting` waits until it is on the disk. Tells whether it could."""
        draft = file.with_suffix(file.suffix + ".new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_text(text, encoding="ascii")
            if is_lasting:
                _sync(draft)
            draft.replace(file)
            if is_lasting:
                _sync(self._directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()  # half a file would keep a full disk full
            if not self._refused:
                what = "%s cannot be written (%s); going on without it, and trying again"
                _log.warning(what, file, error.strerror, extra=about(Event.STATE_UNWRITABLE))
            self._refused.add(file)
            return False
        if file in self._refused:
            self._refused.discard(file)
            if not self._refused:  # on a disk that is nearly full one file may fit and the other not
                what = "%s can be written again"
                _log.info(what, self._directory, extra=about(Event.STATE_WRITABLE))
        return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
