"""Configuration: an instance's TOML files in, frozen values out, every mistake in one answer.

Owns the names, types, defaults and limits of all keys, and the reading of the key files they
point to. Knows nothing of the running machine: whether a link exists, a name resolves or a
port is free is asked elsewhere.
"""

from vpnd.config.describe import describe
from vpnd.config.keyfiles import Secrets, read_secrets
from vpnd.config.load import load
from vpnd.config.values import (
    AllowRule,
    Config,
    GroupConfig,
    InterfaceConfig,
    IPInterface,
    IPNetwork,
    LocalConfig,
    OffloadName,
    PeerConfig,
    Place,
    RoutingConfig,
)
from vpnd.keys import derived_mac

__all__ = [
    "AllowRule",
    "Config",
    "GroupConfig",
    "IPInterface",
    "IPNetwork",
    "InterfaceConfig",
    "LocalConfig",
    "OffloadName",
    "PeerConfig",
    "Place",
    "RoutingConfig",
    "Secrets",
    "derived_mac",
    "describe",
    "load",
    "read_secrets",
]
