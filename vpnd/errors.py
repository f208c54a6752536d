"""The tree of errors, by whose fault each one is.

Owns every exception that crosses a room's door. The text of an error says what was
wrong, with the value, and what to do about it; it never holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass


class VpndError(Exception):
    """The root of everything vpnd raises on purpose."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a configuration file, with the place an editor can jump to.

    `line` counts from 1 and is None where the file has no line for it (a missing key).
    `key` is the dotted path, such as "peer.berlin.public_key"; empty for the whole file.
    """

    file: str
    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigError(VpndError):
    """The operator's files hold mistakes; all of them are listed, in reading order."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class KeyFileError(VpndError):
    """A key file is missing, readable by others, or holds no key; the text names file and remedy."""


class MalformedMessage(VpndError):  # noqa: N818 - what arrived, not what we did wrong
    """Bytes from the network that break the format. Counted, never answered."""


class RejectedMessage(VpndError):  # noqa: N818
    """A well-formed message that fails a check. Counted under `reason`, never answered."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HostError(VpndError):
    """The kernel said no. `step` names the change that was tried, `cause` what it answered."""

    def __init__(self, step: str, cause: str) -> None:
        super().__init__(f"{step}: {cause}")
        self.step = step
        self.cause = cause


class PlaneError(VpndError):
    """The plane refused a request, or is not there. `code` is the plane's own name for it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


class ControlError(VpndError):
    """The user of vpnctl asked for what cannot be done. `code` is stable, `text` is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
