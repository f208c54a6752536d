"""The files of one state directory: how they are read, replaced, and what a damaged one costs.

Owns that every file is replaced whole. A missing, truncated or garbled one costs a warning, never the
start; a write that the disk refuses is logged once, and tried again by whoever wanted it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from vpnd.daemon.journal import Event, about
from vpnd.durable import sync
from vpnd.keys import PublicKey

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FILE_LIMIT = 16 * 2**20  # bytes read back at most


class Files:
    """The files of one directory, by their names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._refused: set[Path] = set()  # files that the disk would not take last time

    @property
    def unwritable(self) -> tuple[str, ...]:
        """The files that the disk would not take last time."""
        return tuple(sorted(str(file) for file in self._refused))

    def read(self, name: str) -> str | None:
        """Gives the text of a file; None where there is none."""
        file = self._directory / name
        try:
            with file.open("rb") as stream:
                return stream.read(_FILE_LIMIT).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            what = "%s cannot be read (%s); going on without it"
            _log.warning(what, file, error.strerror, extra=about(Event.STATE_SPOILT))
            return None

    def spoilt(self, name: str, what: str) -> None:
        """Tells that a file's content is of no use."""
        _log.warning("%s %s", self._directory / name, what, extra=about(Event.STATE_SPOILT))

    def write(self, name: str, text: str, *, is_lasting: bool = False) -> bool:
        """Replaces a file; `is_lasting` waits until it is on the disk. Tells whether it could."""
        file = self._directory / name
        draft = file.with_suffix(file.suffix + ".new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_text(text, encoding="ascii")
            if is_lasting:
                sync(draft)
            draft.replace(file)
            if is_lasting:
                sync(self._directory)
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


class KeyedFile(Generic[T]):
    """A JSON object of one file: a value for each of some keys."""

    def __init__(
        self,
        files: Files,
        name: str,
        *,
        read: Callable[[Any], T | None],
        write: Callable[[T], object] = str,
        spoilt: str,
    ) -> None:
        """`read` and `write` turn a value from and to JSON: None is left out, and ValueError, TypeError,
        KeyError or AttributeError makes the whole file `spoilt`, which is how that is told.
        """
        self._files = files
        self._name = name
        self._read = read
        self._write = write
        self._spoilt = spoilt
        self.written: Mapping[PublicKey, T] = {}

    def load(self) -> dict[PublicKey, T]:
        """Gives what was written, by an earlier life too; nothing where that is spoilt."""
        text = self._files.read(self._name)
        if text is None:
            return {}
        try:
            values = {PublicKey.from_base64(key): self._read(each) for key, each in json.loads(text).items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._files.spoilt(self._name, self._spoilt)
            return {}
        found = {key: value for key, value in values.items() if value is not None}
        self.written = dict(found)
        return found

    def store(self, values: Mapping[PublicKey, T], *, is_lasting: bool = False) -> bool:
        """Writes them if they changed; tells whether they stand there."""
        if values == self.written:
            return True
        content = {str(key): self._write(value) for key, value in values.items()}
        is_written = self._files.write(
            self._name, json.dumps(content, indent=1) + "\n", is_lasting=is_lasting
        )
        if is_written:
            self.written = dict(values)
        return is_written
