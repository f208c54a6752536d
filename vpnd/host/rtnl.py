"""The message classes of pyroute2 that this room speaks to the kernel with, and nothing else of it.

pyroute2's own __init__ imports the whole library, with its databases and servers: half of the time that
vpnd took to start. So these few modules are imported past it; afterwards the package is as if nobody had
asked for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator

_PACKAGE = "pyroute2"


@contextlib.contextmanager
def _past_the_front_door() -> Iterator[None]:
    """Lets submodules of pyroute2 be imported without its __init__."""
    found = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or found is None:
        yield
        return
    package = types.ModuleType(_PACKAGE)
    package.__spec__, package.__path__ = found, found.submodule_search_locations or []
    sys.modules[_PACKAGE] = package
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


with _past_the_front_door():
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = ["fibmsg", "ifaddrmsg", "ifinfmsg", "rtmsg"]
