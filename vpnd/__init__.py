"""vpnd: a VPN daemon for Linux fleets. Python decides, C moves packets."""

__version__ = "0.1.0"
