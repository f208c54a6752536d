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
from vpnd.keys import Identity, Secret, read_key_file


@dataclass(frozen=True, slots=True)
class Secrets:
    """Who we are, and what we share. A peer without preshared key is absent; an absent knock is zero."""

    identity: Identity
    knock: Secret
    preshared_keys: Mapping[str, Secret]


def read_secrets(config: Config, credentials: Path | None) -> Secrets:
    """Reads every key file of the configuration; of two with the same name the credential wins.

    `credentials` is the folder systemd hands over in $CREDENTIALS_DIRECTORY. Raises ConfigError
    with all bad key files at once, each at the key that names it, and with every peer that
    turns out to be ourselves.
    """
    reading = Reading()
    for file in config.files:
        reading.open(str(file))
    private = _read(reading, config, "local.private_key", config.local.private_key, credentials)
    knock: Secret | None = Secret.zero()
    if config.local.knock is not None:
        knock = _read(reading, config, "local.knock", config.local.knock, credentials)
    preshared_keys = {}
    for peer in config.peers:
        if peer.preshared_key is not None:
            key = f"peer.{peer.name}.preshared_key"
            preshared_keys[peer.name] = _read(reading, config, key, peer.preshared_key, credentials)
    identity = None if private is None else Identity.from_private(private)
    for peer in config.peers:
        if identity is not None and peer.public_key == identity.public:
            place = config.place_of(f"peer.{peer.name}.public_key")
            reading.mistake(place, "our own key, that of local.private_key; a peer has another")
    if identity is None or knock is None or reading.mistakes():
        raise ConfigError(reading.mistakes())
    shared = {name: secret for name, secret in preshared_keys.items() if secret is not None}
    return Secrets(identity, knock, shared)


def _read(reading: Reading, config: Config, key: str, path: Path, credentials: Path | None) -> Secret | None:
    try:
        if credentials is not None and os.path.lexists(credentials / path.name):
            return read_key_file(credentials / path.name, guarded=True)
        return read_key_file(path)
    except KeyFileError as error:
        reading.mistake(config.place_of(key), str(error))
        return None
