"""The host room: shapes the Linux machine around one link.

Wanted state in, smallest change out, safe to apply twice. Knows no configuration file, no
peer and no packet.
"""

from vpnd.host.host import Host, PartlyAppliedError
from vpnd.host.monitor import AddressesChanged, LinkGone, Monitor, MonitorEvent, RoutesChanged
from vpnd.host.plan import (
    ROUTE_PROTOCOL,
    Change,
    FilterPlan,
    FullTunnelPlan,
    HostPlan,
    LinkPlan,
    Permission,
    RoutePlan,
)
from vpnd.host.table_monitor import TableMonitor
from vpnd.host.tun import VNET_HEADER_BYTES, open_link

__all__ = [
    "ROUTE_PROTOCOL",
    "VNET_HEADER_BYTES",
    "AddressesChanged",
    "Change",
    "FilterPlan",
    "FullTunnelPlan",
    "Host",
    "HostPlan",
    "LinkGone",
    "LinkPlan",
    "Monitor",
    "MonitorEvent",
    "PartlyAppliedError",
    "Permission",
    "RoutePlan",
    "RoutesChanged",
    "TableMonitor",
    "open_link",
]
