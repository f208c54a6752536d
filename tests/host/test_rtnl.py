"""pyroute2 past its front door: the classes we use, and no trace for anybody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPTS = {
    "little_of_it_is_loaded": """
import vpnd.host
loaded = {name for name in sys.modules if name.split(".")[0] == "pyroute2"}
assert "pyroute2.netlink.rtnl.ifinfmsg" in loaded
for unwanted in ("", ".iproute", ".ndb", ".ipdb", ".ethtool"):
    assert "pyroute2" + unwanted not in loaded, loaded
""",
    "others_find_all_of_it_afterwards": """
import vpnd.host
import pyroute2
assert pyroute2.IPRoute and pyroute2.NDB
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from vpnd.host.rtnl import ifinfmsg as ours
assert ifinfmsg is ours
""",
    "who_came_first_keeps_it": """
import pyroute2
import vpnd.host
assert sys.modules["pyroute2"] is pyroute2
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_front_door(name: str) -> None:
    command = [sys.executable, "-W", "error", "-c", f"import sys\n{SCRIPTS[name]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
