"""Every kind of event that is told to an operator, by the MESSAGE_ID that the journal knows it by.

Owns the ids. Each has an entry in systemd/vpnd.catalog, which `journalctl -x` shows below the line:
what it means and what to do. An id is never given to another kind: filters and alarms hang on it.
"""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """The kinds of events; the value is the MESSAGE_ID, 128 random bits (sd-id128)."""

    # start and end
    READY = "2ca21b9f460a4f48b9a4787a8479fa7d"
    MISTAKE = "98724967dd1a4937b4ee9c89a4aba1f8"
    REFUSED_BY_MACHINE = "93c936078b5e48f5bf41562782e1fda8"
    REFUSED_BY_PLANE = "7aacc8daf40a458a81d9020d48b4b4d1"
    FAULT = "75c784a486464f4e9148cbcced02e95c"
    REMOVED = "31f3008588e048b9b8ebcc2a5b6d4277"
    # reload
    RELOADED = "195553a0f9314afc91186de2ab33a533"
    RELOAD_REFUSED = "85b427dc214443f58846ac7583d6ebb6"
    RELOAD_STUCK = "70f45b35d3e44bb0be1d4f41305a8aba"
    # the plane and the link
    PLANE_TAKEN = "2d1ccae8240c4125b1fd629076cb96b2"
    PLANE_ABSENT = "89bc37a5ed7d4e85b85aa91a33c81135"
    PLANE_ODD = "4dd59462ab4640b7a586f4cb6a321c12"
    PART_LOST = "c02a406b52664c8ea5861fbdf231bdbe"
    PART_WAITS = "90b72727b18b42879d3ae0114f170afa"
    PART_BACK = "8c04f37c9fa7467e934b139530f9c5d5"
    LINK_REMADE = "1828a0ea18e24b2abdaca3c7a943b4fb"
    MACHINE_ODD = "525eb43f5b214a949988827577934bf9"
    NO_SOCKET = "a8eb416d464c4d6188af24320863c420"
    # peers
    ROAMED = "8f1f8583b7aa4cec8654acd183ff1d25"
    PATH_SMALLER = "5760fb4de0ab4ab3a9fb48a161e587ef"
    NAME_UNRESOLVED = "48c8af2a6f0e4d5e84621f6178504775"
    NAME_RESOLVES = "86319386514f4058bfb873a2f8a5a8e1"
    LEASE_RECLAIMED = "63ced33c52bc40929884119e6b6b28e6"
    NAME_SERVERS = "31fc1fb702ad446c903b085abb01fa02"
    PUSH_TAKEN = "1168c42906d94f07953902f014e4f222"
    PUSH_REFUSED = "6096f622a6f04af3bd307e36cc228531"
    LEFT_OUT = "db4845e9ca40453587e45cac5fb2ba02"
    INVITED_CAME = "89558bbdab994ce0ae3d1226a4c32d95"
    JOIN_REFUSED = "c42d701ef0054f48836636c07a107fb9"
    INVITATION_OVER = "d04fe20101554484b1610faf3e99a81f"
    STRANGER = "dfe9ebaebe9443889adbea488483d832"
    # the machine below
    STATE_SPOILT = "b1bb2b7f338f4c658cdaf52f094df0a1"
    STATE_UNWRITABLE = "9927a85ba9734f98adbf51e97eff5b38"
    STATE_WRITABLE = "7b9df19bbb7941d68980ccd1005781ed"
    CLOCK_BEHIND = "f9f0f4fc6b0d4898968b70e63d1e6430"
    SCARCE = "8c8578c93fce416998442ae174c491f8"
    NOT_HARDENED = "f24d05b6362b43ce83074ad1a574280d"
    MANAGER_DEAF = "8e0a730166e6429b9f3c5b78091662e4"
    # who may speak to us
    TURNED_AWAY = "7dbce95859404390b63084dea47d8122"
    ADMINS_SHUT_OUT = "1c8498d57ee644078c6f0d39e9e59d12"


def about(event: Event, peer: str | None = None) -> dict[str, str]:
    """Gives the `extra` of a log call: what kind of event its line tells of, and about which peer."""
    fields = {"MESSAGE_ID": event.value}
    if peer is not None:
        fields["VPND_PEER"] = peer
    return fields
