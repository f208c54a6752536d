"""What one instance remembers between its lives: the handshake's clock mark, the peers' endpoints, since
when keys are being replaced, the addresses it gave, what it was told by those that give it some, what it
pushed to whom, and who joined by invitation.

Owns which file holds what, and how often. Nothing secret is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vpnd.daemon.files import Files, KeyedFile
from vpnd.daemon.leases import Lease, read_leases, write_leases
from vpnd.daemon.pushes import Told
from vpnd.endpoint import Endpoint, parse_endpoint
from vpnd.keys import PublicKey

TIMESTAMP_WRITE_INTERVAL_S = 10.0  # protocol section 5.1: rewritten at most so often
ENDPOINTS_WRITE_INTERVAL_S = 30.0  # protocol section 8

_TIMESTAMP = "last-timestamp"
_LEASES = "leases.toml"


class StateDirectory:
    """The files of one instance."""

    def __init__(self, directory: Path) -> None:
        self._files = files = Files(directory)
        self.previous_keys = KeyedFile[float](
            files,
            "previous-keys.json",
            read=float,
            write=float,
            spoilt="tells of no keys and is started anew",
        )
        """Since when each key is a previous one, in seconds since 1970."""
        self.told = KeyedFile[Told](
            files,
            "told.json",
            read=Told.from_json,
            write=Told.to_json,
            spoilt="tells nothing of what peers push and is started anew",
        )
        """What peers pushed to us."""
        self.pushed = KeyedFile[str](
            files, "pushed.json", read=str, spoilt="tells nothing of what was pushed and is started anew"
        )
        """The digest of what each peer knows of our pushes."""
        self.enrolled = KeyedFile[PublicKey](
            files,
            "enrolled.json",
            read=PublicKey.from_base64,
            spoilt="tells of no peers that joined; they have to be invited anew",
        )
        """The own key of each peer that joined, by the one-time key of its token."""
        self._endpoints = KeyedFile[Endpoint](
            files, "endpoints.json", read=_read_endpoint, spoilt="is no endpoint cache and is started anew"
        )
        self._endpoints_due = 0.0
        self._written_timestamp_ns = 0
        self._timestamp_due = 0.0
        self._written_leases: str | None = None

    @property
    def unwritable(self) -> tuple[str, ...]:
        """The files that the disk would not take last time."""
        return self._files.unwritable

    def load_timestamp_ns(self) -> int:
        """Tells the last handshake timestamp used, in ns since 1970; 0 when none is known."""
        text = self._files.read(_TIMESTAMP)
        if text is None:
            return 0
        if not (text.strip().isascii() and text.strip().isdigit() and len(text) < 24):
            self._files.spoilt(_TIMESTAMP, "holds no timestamp and is started anew")
            return 0
        self._written_timestamp_ns = int(text)
        return self._written_timestamp_ns

    def load_endpoints(self) -> dict[PublicKey, Endpoint]:
        """Tells where each peer was last seen."""
        return self._endpoints.load()

    def has_endpoint(self, peer: PublicKey, endpoint: Endpoint) -> bool:
        """Tells whether this is what was written of the peer."""
        return self._endpoints.written.get(peer) == endpoint

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
            if timestamp_ns != self._written_timestamp_ns and self._files.write(
                _TIMESTAMP, f"{timestamp_ns}\n"
            ):
                self._written_timestamp_ns = timestamp_ns
        if endpoints == self._endpoints.written:
            return True
        if not at_once and now < self._endpoints_due:
            return False
        self._endpoints_due = now + ENDPOINTS_WRITE_INTERVAL_S
        return self._endpoints.store(endpoints)

    def load_leases(self) -> dict[PublicKey, Lease]:
        """Tells which addresses were given."""
        text = self._files.read(_LEASES)
        if text is None:
            return {}
        leases, spoilt = read_leases(text)
        for what in spoilt:
            self._files.spoilt(_LEASES, f"{what}; going on without")
        self._written_leases = None if spoilt else text
        return leases

    def store_leases(self, leases: Mapping[PublicKey, Lease]) -> None:
        """Writes the addresses that are given, if they changed; they outlast a power cut from then on."""
        text = write_leases(leases)
        is_empty = not leases and self._written_leases is None
        if (
            text != self._written_leases
            and not is_empty
            and self._files.write(_LEASES, text, is_lasting=True)
        ):
            self._written_leases = text


def _read_endpoint(text: str) -> Endpoint | None:
    """Leaves a name out: it would be asked for without anybody's wish."""
    endpoint = parse_endpoint(text)
    return endpoint if isinstance(endpoint, Endpoint) else None
