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
from vpnd.keys import Identity, PublicKey, Secret, read_key_file


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
    """Reads every key file of the configuration; of two with the same name the credential wins.

    `credentials` is the folder systemd hands over in $CREDENTIALS_DIRECTORY. Raises ConfigError
    with all bad key files at once, each at the key that names it, and with every key of a peer
    that turns out to be ours.
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
    lacks_credential = credentials is not None and not os.path.lexists(credentials / path.name)
    try:
        if credentials is not None and not lacks_credential:
            return read_key_file(credentials / path.name, guarded=True)
        return read_key_file(path)
    except KeyFileError as error:
        text = str(error)
        if lacks_credential:
            text += f"; nor is there a credential: LoadCredential={path.name}:{path}"
        reading.mistake(config.place_of(key), text)
        return None
