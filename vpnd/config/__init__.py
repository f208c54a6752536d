"""Configuration: an instance's TOML files in, frozen values out, every mistake in one answer.

Owns the names, types, defaults and limits of all keys, and the reading of the key files they
point to. Knows nothing of the running machine: whether a link exists, a name resolves or a
port is free is asked elsewhere.
"""

from vpnd.config.describe import describe, show_moment
from vpnd.config.keyfiles import Secrets, read_secrets
from vpnd.config.load import load
from vpnd.config.pool import fixed_address, fixed_addresses, is_assigned, is_inside, kept_out
from vpnd.config.sections import TABLES
from vpnd.config.values import (
    AllowRule,
    Config,
    DnsConfig,
    GroupConfig,
    InterfaceConfig,
    IPAddress,
    IPInterface,
    IPNetwork,
    LocalConfig,
    OffloadName,
    PeerConfig,
    Place,
    PoolConfig,
    PushConfig,
    RoutingConfig,
)
from vpnd.keys import derived_mac

__all__ = [
    "TABLES",
    "AllowRule",
    "Config",
    "DnsConfig",
    "GroupConfig",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "InterfaceConfig",
    "LocalConfig",
    "OffloadName",
    "PeerConfig",
    "Place",
    "PoolConfig",
    "PushConfig",
    "RoutingConfig",
    "Secrets",
    "derived_mac",
    "describe",
    "fixed_address",
    "fixed_addresses",
    "is_assigned",
    "is_inside",
    "kept_out",
    "load",
    "read_secrets",
    "show_moment",
]
