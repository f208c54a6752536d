"""Reads the secrets a configuration points to: from systemd's credentials, else from key files.

Owns the order of preference and the checks that need our own key. The secrets stay in the
buffers of vpnd.keys; no mistake's text holds any of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vpnd.config.reader import Reading
from vpnd.config.values import Config
from vpnd.errors import ConfigError, KeyFileError
from vpnd.keys import Identity, PublicKey, Secret, check_unexposed, read_key_file

# SetCredential= of vpnd@.service: the service starts without its key, so that we can say which it is.
_NOT_THERE = b"missing"

# Why a service cannot read what it was told to: keys are root's.
_NOT_OURS = (
    "{path}: not handed over to this service, which may not read it itself. systemd hands over "
    "/etc/vpnd/keys/{instance}.key and the files in /etc/vpnd/keys/{instance}/ as they are at its start; "
    "vpnctl key gen makes a private key, vpnctl key psk a shared one"
)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Who we are, and what we share. A peer without preshared key is absent; an absent knock is zero.

    `previous` is who we were before, while that key is replaced.
    """

    identity: Identity
    knock: Secret
    preshared_keys: Mapping[str, Secret]
    previous: Identity | None = None


def read_secrets(config: Config, credentials: Path | None) -> Secrets:
    """Reads every key file of the configuration; of a file and its credential the credential wins.

    `credentials` is the folder systemd hands over in $CREDENTIALS_DIRECTORY; the credential of
    keys/site.key is site.key, that of keys/site/berlin.psk may be site_berlin.psk, as systemd names
    the files of a folder that it hands over whole. Raises ConfigError with all bad key files at
    once, each at the key that names it, and with every key of a peer that turns out to be ours.
    """
    reading = Reading()
    for file in config.files:
        reading.open(str(file))
    local = config.local
    identity = _read_identity(reading, config, "local.private_key", local.private_key, credentials)
    previous = None
    if local.previous_private_key is not None:
        key = "local.previous_private_key"
        previous = _read_identity(reading, config, key, local.previous_private_key, credentials)
    knock: Secret | None = Secret.zero()
    if local.knock is not None:
        knock = _read(reading, config, "local.knock", local.knock, credentials)
    preshared_keys = {}
    for peer in config.peers:
        if peer.preshared_key is not None:
            key = f"peer.{peer.name}.preshared_key"
            preshared_keys[peer.name] = _read(reading, config, key, peer.preshared_key, credentials)
    _check_own_keys(reading, config, identity, previous)
    if identity is None or knock is None or reading.mistakes():
        raise ConfigError(reading.mistakes())
    shared = {name: secret for name, secret in preshared_keys.items() if secret is not None}
    return Secrets(identity, knock, shared, previous)


def _check_own_keys(
    reading: Reading, config: Config, identity: Identity | None, previous: Identity | None
) -> None:
    own: dict[PublicKey, str] = {}
    if previous is not None:
        own[previous.public] = "local.previous_private_key"
    if identity is not None:
        if identity.public in own:
            place = config.place_of("local.previous_private_key")
            reading.mistake(place, "the same key as that of local.private_key; it is the one before")
        own[identity.public] = "local.private_key"
    for peer in config.peers:
        for name in ("public_key", "previous_public_key"):
            ours = own.get(getattr(peer, name))
            if ours is not None:
                place = config.place_of(f"peer.{peer.name}.{name}")
                reading.mistake(place, f"our own key, that of {ours}; a peer has another")


def _read_identity(
    reading: Reading, config: Config, key: str, path: Path, credentials: Path | None
) -> Identity | None:
    private = _read(reading, config, key, path, credentials)
    return None if private is None else Identity.from_private(private)


def _read(reading: Reading, config: Config, key: str, path: Path, credentials: Path | None) -> Secret | None:
    try:
        for name in (path.name, f"{path.parent.name}_{path.name}"):
            if credentials is not None and _was_handed_over(credentials / name):
                # The file behind it may lie open all the same, which systemd does not mind.
                check_unexposed(path)
                return read_key_file(credentials / name, guarded=True)
        return read_key_file(path)
    except KeyFileError as error:
        is_hidden = credentials is not None and _is_hidden(path)
        text = _NOT_OURS.format(path=path, instance=config.instance) if is_hidden else str(error)
        reading.mistake(config.place_of(key), text)
        return None


def _was_handed_over(credential: Path) -> bool:
    """Tells a key from nothing, and from what the unit hands over in place of a file that was missing."""
    if not credential.is_file():
        return os.path.lexists(credential)
    with credential.open("rb", buffering=0) as file:
        return file.read(len(_NOT_THERE) + 1) != _NOT_THERE


def _is_hidden(path: Path) -> bool:
    """Whether the file, or just whether there is one, is hidden from us."""
    try:
        path.open("rb").close()
    except PermissionError:
        return True
    except OSError:
        pass
    return False
