"""Random requests, right and wrong, against a model in Python that says what the plane must hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.plane.harness import Rig, plane_program, public_key, running_rig, wait_until
from tests.plane.namespace import Namespace
from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError
from vpnd.keys import Secret
from vpnd.plane import wire
from vpnd.plane.wire import SessionSlot, WireType

UNCONFIRMED, CURRENT, PREVIOUS = SessionSlot.UNCONFIRMED, SessionSlot.CURRENT, SessionSlot.PREVIOUS
NETWORKS = [
    ip_network(each) for each in ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "::/0", "fd00::/8", "0.0.0.0/0")
]
peers = st.integers(0, 4)
indices = st.integers(1, 12)
some_networks = st.lists(st.sampled_from(NETWORKS), max_size=4, unique=True)
endpoints = st.none() | st.integers(1, 3).map(lambda port: Endpoint(IPv4Address("127.0.0.250"), port))


@dataclass
class ModelSession:
    remote_index: int
    suite: int
    is_initiator: bool
    preferred: bool
    slot: SessionSlot

    def is_same(self, other: ModelSession) -> bool:
        """The same but for the slot it stands in."""
        return replace(other, slot=self.slot) == self


@dataclass
class ModelPeer:
    key: int
    endpoint: Endpoint | None = None
    networks: set[IPv4Network | IPv6Network] = field(default_factory=set)
    sessions: dict[int, ModelSession] = field(default_factory=dict)  # by local index, oldest first

    def place(self, local_index: int, session: ModelSession) -> None:
        if session.slot == UNCONFIRMED:
            waiting = [each for each, other in self.sessions.items() if other.slot == UNCONFIRMED]
            if len(waiting) == 2:
                del self.sessions[waiting[0]]
        else:
            for index, other in list(self.sessions.items()):
                if other.slot == PREVIOUS:
                    del self.sessions[index]
                elif other.slot == CURRENT:
                    other.slot = PREVIOUS
        self.sessions[local_index] = session


class PlaneMachine(RuleBasedStateMachine):
    """Every rule asks both; the invariant compares."""

    namespace: Namespace

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(self.namespace, plane_program())
        self.rig.add_sockets("127.0.0.1")
        self.model: dict[int, ModelPeer] = {}

    def teardown(self) -> None:
        self.rig.close()

    def owner(self, local_index: int) -> int | None:
        return next((peer for peer, each in self.model.items() if local_index in each.sessions), None)

    def expect(self, error: str | None, ask: str, *arguments: object, **named: object) -> None:
        answered = None
        try:
            getattr(self.rig.client, ask)(*arguments, **named)
        except PlaneError as refused:
            answered = refused.code
        assert answered == error, ask

    @rule(peer=peers, key=st.integers(0, 1), networks=some_networks, endpoint=endpoints, rename=st.booleans())
    def set_peer(
        self,
        peer: int,
        key: int,
        networks: list[IPv4Network | IPv6Network],
        endpoint: Endpoint | None,
        rename: bool,
    ) -> None:
        known = self.model.get(peer)
        is_refused = known is not None and known.key != key and not rename
        error = "peer_exists" if is_refused else None
        self.expect(error, "set_peer", peer, public_key(100 + key), networks, endpoint, rename=rename)
        if is_refused:
            return
        known = self.model.setdefault(peer, ModelPeer(key))
        known.key = key
        for each in self.model.values():
            each.networks -= set(networks)
        known.networks = set(networks)
        known.endpoint = endpoint or known.endpoint

    @rule(peer=peers)
    def remove_peer(self, peer: int) -> None:
        self.expect(None if peer in self.model else "no_such_peer", "remove_peer", peer)
        self.model.pop(peer, None)

    @rule(
        peer=peers,
        index=indices,
        remote=st.integers(1, 2),
        suite=st.sampled_from([1, 2, 2, 3]),
        is_initiator=st.booleans(),
        preferred=st.booleans(),
        endpoint=endpoints.filter(bool),
    )
    def install_session(
        self,
        peer: int,
        index: int,
        remote: int,
        suite: int,
        is_initiator: bool,
        preferred: bool,
        endpoint: Endpoint,
    ) -> None:
        key = Secret.copy_of(bytes([index]) * 36)
        named = {
            "peer_id": peer,
            "local_index": index,
            "remote_index": remote,
            "suite": suite,
            "is_initiator": is_initiator,
            "preferred": preferred,
            "padding": 0,
            "features": 1,
            "endpoint": endpoint,
            "send_key": key,
            "receive_key": key,
        }
        known = self.model.get(peer)
        owner = self.owner(index)
        if suite == 3:
            self.expect("bad_value", "install_session", **named)
        elif known is None:
            self.expect("no_such_peer", "install_session", **named)
        elif owner is not None:
            wanted = ModelSession(remote, suite, is_initiator, preferred, UNCONFIRMED)
            same = owner == peer and known.sessions[index].is_same(wanted)
            self.expect(None if same else "session_exists", "install_session", **named)
        else:
            self.expect(None, "install_session", **named)
            slot = CURRENT if is_initiator else UNCONFIRMED
            known.place(index, ModelSession(remote, suite, is_initiator, preferred, slot))
            if is_initiator:
                known.endpoint = endpoint

    @rule(peer=peers, index=indices)
    def retire_session(self, peer: int, index: int) -> None:
        known = self.model.get(peer)
        if known is None:
            self.expect("no_such_peer", "retire_session", peer, index)
        elif index not in known.sessions:
            self.expect("no_such_session", "retire_session", peer, index)
        else:
            self.expect(None, "retire_session", peer, index)
            del known.sessions[index]

    @rule(peer=peers)
    def send_keepalive(self, peer: int) -> None:
        known = self.model.get(peer)
        error = "no_such_peer" if known is None else None
        if known is not None and not any(each.slot == CURRENT for each in known.sessions.values()):
            error = "no_session"
        self.expect(error, "send_keepalive", peer)

    @rule(peer=peers)
    def flush_staged(self, peer: int) -> None:
        self.expect(None if peer in self.model else "no_such_peer", "flush_staged", peer)

    @rule(kind=st.integers(0, 40), body=st.binary(max_size=120))
    def garbage(self, kind: int, body: bytes) -> None:
        """A request whose body is of a wrong length for its type cannot be taken for another."""
        if kind in {WireType.STOP, WireType.INVENTORY} and not body:
            return
        fits = {
            WireType.HELLO: 8, WireType.LIST_PEERS: 8, WireType.LIST_SESSIONS: 8, WireType.LIST_MACS: 8,
            WireType.REMOVE_PEER: 8, WireType.RETIRE_SESSION: 8, WireType.SEND_KEEPALIVE: 8,
            WireType.FLUSH_STAGED: 8, WireType.SET_OPTIONS: 8, WireType.SET_PEER: 72,
        }  # fmt: skip
        if kind in {WireType.SEND_DATAGRAM, WireType.SEND_CONTROL} or len(body) == fits.get(kind):  # type: ignore[call-overload]
            return
        assert self.rig.request(kind, body)[0] in {
            "unknown_request",
            "bad_length",
            "bad_value",
            "bad_descriptors",
        }

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def several_waiting_requests(self, data: st.DataObject) -> None:
        """Requests nobody waits for are done in their order."""
        peer = data.draw(st.sampled_from(sorted(self.model)))
        for index in list(self.model[peer].sessions):
            self.rig.client.retire_session(peer, index, wait=False)
        self.model[peer].sessions.clear()

    @invariant()
    def the_inventory_is_the_models(self) -> None:
        inventory = self.rig.inventory()
        listed_peers = {
            each.peer_id: (each.public_key, each.network_count, each.endpoint) for each in inventory.peers
        }
        assert listed_peers == {
            number: (public_key(100 + each.key), len(each.networks), each.endpoint)
            for number, each in self.model.items()
        }
        listed_sessions = {
            each.local_index: (each.peer_id, each.remote_index, each.suite, each.is_initiator, each.slot)
            for each in inventory.sessions
        }
        assert listed_sessions == {
            index: (number, each.remote_index, each.suite, each.is_initiator, each.slot)
            for number, peer in self.model.items()
            for index, each in peer.sessions.items()
        }
        for number, peer in self.model.items():
            current = [index for index, each in peer.sessions.items() if each.slot == CURRENT]
            assert self.rig.client.counters.peer(number).current_index == (current[0] if current else None)


def test_any_run_of_requests_leaves_the_plane_as_the_model_says(namespace: Namespace) -> None:
    PlaneMachine.namespace = namespace
    run_state_machine_as_test(
        PlaneMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        ),
    )


messages = st.binary(min_size=1, max_size=200) | st.builds(
    lambda kind, body: wire.HEADER.pack(kind, 1, 0, len(body)) + body,
    st.integers(0, 0xFFFF).filter(lambda kind: kind != WireType.STOP),
    st.binary(max_size=300),
)


@pytest.fixture(scope="module")
def garbage_rig(namespace: Namespace) -> Iterator[Rig]:
    with running_rig(namespace, plane_program()) as rig:
        yield rig


@settings(
    max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
@given(message=messages)
def test_any_bytes_are_answered_and_kill_nothing(garbage_rig: Rig, message: bytes) -> None:
    """Each message gets one answer; the plane goes on."""
    before = garbage_rig.descriptors()
    garbage_rig.send_raw(message)
    assert garbage_rig.descriptors() == before
    assert garbage_rig.child.poll() is None


def test_messages_with_descriptors_in_them_leak_none(rig: Rig) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    before = rig.descriptors()
    for count in (1, 2, 63, 64, 65, 200):
        for message in (b"\x06", wire.HEADER.pack(WireType.SET_LINK, 1, 0, 0), wire.HEADER.pack(99, 1, 0, 0)):
            assert rig.send_raw(message, [null] * count)[0]
    wait_until(lambda: rig.descriptors() == before, "every descriptor closed")
    os.close(null)


def test_a_message_of_the_largest_size_and_one_beyond_are_answered(rig: Rig) -> None:
    rig._raw.setsockopt(1, 32, 1 << 20)  # SO_SNDBUFFORCE
    largest = wire.MESSAGE_MAX - wire.HEADER.size
    assert rig.request(99, bytes(largest))[0] == "unknown_request"
    assert rig.request(WireType.REMOVE_PEER, bytes(largest))[0] == "bad_length"
    assert rig.request(WireType.REMOVE_PEER, bytes(largest + 1))[0] == "bad_length"
    assert rig.request(WireType.REMOVE_PEER, bytes(4 * largest))[0] == "bad_length"
