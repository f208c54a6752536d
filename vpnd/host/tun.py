"""Opens the queues of a TUN or TAP link through /dev/net/tun.

Owns the ioctls of linux/if_tun.h and the words for what they refuse. Gives descriptors away
and never reads a packet; the link's addresses and the rest are link.py's work.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import struct

from vpnd.errors import HostError
from vpnd.host.link import ObservedLink, check_link, has_room, observe_link
from vpnd.host.netlink import Netlink
from vpnd.host.plan import LinkPlan

# The smallest virtio_net_hdr, without the count of merged buffers: what IFF_VNET_HDR puts before a packet.
VNET_HEADER_BYTES = 10

_TUN_DEVICE = "/dev/net/tun"
_IFF_TUN, _IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0001, 0x0002, 0x1000, 0x4000, 0x0100

# These architectures number the directions of an ioctl otherwise than asm-generic/ioctl.h.
_IOC_WRITE = 4 if platform.machine().startswith(("alpha", "mips", "ppc", "sparc")) else 1


def _tun_ioctl(number: int) -> int:
    return _IOC_WRITE << (29 if _IOC_WRITE == 4 else 30) | 4 << 16 | ord("T") << 8 | number


TUNSETIFF, TUNSETPERSIST = _tun_ioctl(202), _tun_ioctl(203)
TUNSETOWNER, TUNSETGROUP = _tun_ioctl(204), _tun_ioctl(206)
TUNSETOFFLOAD, TUNSETVNETHDRSZ = _tun_ioctl(208), _tun_ioctl(216)


def open_link(plan: LinkPlan, *, held: int = 0) -> tuple[int, ...]:
    """Opens the planned number of the link's queues, creating the persistent link where it is missing.

    Every descriptor (blocking, close-on-exec, owned by the caller) carries packets behind a
    virtio_net_hdr of VNET_HEADER_BYTES, without offloads. A link made for more than one queue takes
    any number; one made for a single queue takes no other. Owner and group are given to a link that
    has none. HostError if the name belongs to something else, if more queues are open than the `held`
    ones that the caller knows of, or if /dev/net/tun is shut. A link that was made by a call that
    fails half-way vanishes again.
    """
    with Netlink() as netlink:
        standing = observe_link(netlink, plan.name)
    if standing is not None:
        check_link(standing, plan)
        _check_queues(standing, plan, held)
    is_multi_queue = plan.queues > 1 or (standing is not None and standing.is_multi_queue)
    descriptors: list[int] = []
    try:
        for _ in range(plan.queues):
            descriptors.append(os.open(_TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
            _attach(descriptors[-1], plan, is_multi_queue=is_multi_queue)
        _settle(descriptors[0], plan, standing)
    except BaseException as error:
        _close(descriptors)
        if not isinstance(error, OSError):
            raise
        raise HostError(f"open {plan.type} link {plan.name}", _explain(error, plan)) from error
    return tuple(descriptors)


def _check_queues(standing: ObservedLink, plan: LinkPlan, held: int) -> None:
    if standing.queues > held:
        raise HostError(
            f"open link {standing.name}",
            f"another process holds it ({standing.queues} of its queues are open); end that process first",
        )
    if not has_room(standing, plan):
        raise HostError(
            f"open link {standing.name}",
            f"it was made for one queue and {plan.queues} are asked for; "
            f"delete it and start again: ip link delete {standing.name}",
        )


def _attach(descriptor: int, plan: LinkPlan, *, is_multi_queue: bool) -> None:
    flags = _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_TUN if plan.type == "tun" else _IFF_TAP)
    flags |= _IFF_MULTI_QUEUE if is_multi_queue else 0
    # struct ifreq: 16 bytes of name, then a union of which the flags take two.
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", plan.name.encode(), flags))
    fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
    fcntl.ioctl(descriptor, TUNSETOFFLOAD, 0)


def _settle(descriptor: int, plan: LinkPlan, standing: ObservedLink | None) -> None:
    """Persistence comes last: until then a failure leaves no link behind."""
    if plan.owner is not None and (standing is None or standing.owner is None):
        fcntl.ioctl(descriptor, TUNSETOWNER, _as_int(plan.owner))
    if plan.group is not None and (standing is None or standing.group is None):
        fcntl.ioctl(descriptor, TUNSETGROUP, _as_int(plan.group))
    fcntl.ioctl(descriptor, TUNSETPERSIST, 1)


def _as_int(number: int) -> int:
    # Ids have 32 bits without a sign, Python's ioctl takes them with one.
    return number - (1 << 32) if number >= 1 << 31 else number


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _explain(error: OSError, plan: LinkPlan) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"{_TUN_DEVICE} is missing; load the kernel module with: modprobe tun"
        case errno.EACCES | errno.EPERM:
            return (
                f"no permission for {_TUN_DEVICE}; vpnd needs CAP_NET_ADMIN, and to read and write that file"
            )
        case errno.EBUSY | errno.E2BIG:
            return f"another process holds {plan.name}; end that process first"
        case errno.EINVAL:
            return f"the kernel takes no {plan.type} link under the name {plan.name!r} (Invalid argument)"
        case _:
            return error.strerror or str(error)
