"""Parameters: the accept/refuse table of section 10, and what two ends agree on."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.protocol.constants import Feature, PaddingMode, Suite
from vpnd.protocol.parameters import (
    Capabilities,
    Parameters,
    accept_choice,
    accept_offer,
    decode_parameters_untrusted,
    encode_parameters,
    encode_push,
    pad_parameters,
)

AES, CHACHA = Suite.AES_256_GCM, Suite.CHACHA20_POLY1305

WHOLE = Parameters(
    versions=(1, 2),
    suites=(1, 2),
    mtu=1420,
    features=0x47,
    keepalive_s=25,
    addresses=(ip_interface("192.168.53.99/24"), ip_interface("2001:db8::99/64")),
    routes=(ip_network("192.168.60.0/24"), ip_network("2001:db8:60::/48")),
    dns=(ip_address("192.168.53.1"), ip_address("2001:db8::1")),
    epoch=b"8 bytes.",
    padding=PaddingMode.BUCKET,
    psk_next=True,
    domains=("corp.example", "~."),
    push_later=True,
)

OWN = Capabilities(
    versions=(1,),
    suites=(AES, CHACHA),
    mtu=1420,
    features=Feature.TUN | Feature.CSUM | Feature.PARAMS,
    padding=PaddingMode.NONE,
)

# type, a right value, wrong values
FIELDS = [
    (0x81, "01", [""]),
    (0x82, "0102", [""]),
    (0x03, "8c05", ["", "8c", "8c0500", "4300"]),
    (0x84, "05000000", ["", "050000", "0500000000"]),
    (0x05, "1900", ["", "19", "190000"]),
    (0x06, "c0a8356318", ["", "c0a83563", "c0a8356318ff", "c0a8356321"]),
    (0x07, "20010db8000000000000000000000099" + "40", ["", "40", "20010db8000000000000000000000099" + "81"]),
    (0x08, "18c0a83c00", ["", "18c0a83c", "21c0a83c00", "18c0a83c01"]),
    (0x09, "30" + "20010db8006000000000000000000000", ["", "30", "81" + "00" * 16, "30" + "00" * 15 + "01"]),
    (0x0A, "c0a83501", ["", "c0a835", "c0a8350100"]),
    (0x0B, "0102030405060708", ["", "01020304050607", "010203040506070809"]),
    (0x0C, "03", ["", "04", "ff", "0000"]),
    (0x0D, "01", ["", "0101"]),
    (0x0E, b"~corp.example".hex(), ["", "7e", "ff", b"a b".hex(), b"a..b".hex()]),
    (0x0F, "01", ["", "0100"]),
]
REPEATABLE = (0x06, 0x07, 0x08, 0x09, 0x0A, 0x0E)


def tlv(kind: int, value: str) -> bytes:
    raw = bytes.fromhex(value)
    return bytes((kind, len(raw))) + raw


def decodes(data: bytes) -> bool:
    try:
        decode_parameters_untrusted(data)
    except MalformedMessage:
        return False
    return True


def test_everything_said_is_read_again() -> None:
    """[A19] Encoding and decoding are inverse, with and without padding."""
    data = encode_parameters(WHOLE)
    assert decode_parameters_untrusted(data) == WHOLE
    assert decode_parameters_untrusted(pad_parameters(data)) == WHOLE


def test_nothing_said_takes_no_byte() -> None:
    """[A19] Absent stays absent."""
    assert encode_parameters(Parameters()) == b""
    assert decode_parameters_untrusted(b"") == Parameters()
    assert decode_parameters_untrusted(bytes(64)) == Parameters()


@pytest.mark.parametrize(("kind", "right", "wrong"), FIELDS)
def test_each_field_has_exactly_its_sizes_and_values(kind: int, right: str, wrong: list[str]) -> None:
    """[A19] The accept/refuse table."""
    assert decodes(tlv(kind, right))
    for value in wrong:
        assert not decodes(tlv(kind, value)), value


@pytest.mark.parametrize(("kind", "right", "wrong"), FIELDS)
def test_each_field_cut_anywhere_is_refused(kind: int, right: str, wrong: list[str]) -> None:
    """[A19] Truncation and overrun, also when another field follows."""
    whole = tlv(kind, right)
    for size in range(1, len(whole)):
        assert not decodes(whole[:size])
    too_long = bytes((kind, whole[1] + 1)) + whole[2:]
    assert not decodes(too_long)
    assert not decodes(bytes((kind, 255)) + whole[2:] + tlv(0x0B, "0102030405060708"))


@pytest.mark.parametrize(("kind", "right", "wrong"), FIELDS)
def test_only_starred_fields_may_stand_twice(kind: int, right: str, wrong: list[str]) -> None:
    """[A19] A repeated field is refused, also with its critical bit the other way."""
    assert decodes(tlv(kind, right) * 2) == (kind in REPEATABLE)
    assert decodes(tlv(kind, right) + tlv(kind ^ 0x80, right)) == (kind in REPEATABLE)


@pytest.mark.parametrize(("kind", "right", "wrong"), FIELDS)
def test_the_critical_bit_changes_no_meaning_of_a_known_field(
    kind: int, right: str, wrong: list[str]
) -> None:
    """[A19] It only speaks to those who do not know the field."""
    assert decode_parameters_untrusted(tlv(kind, right)) == decode_parameters_untrusted(
        tlv(kind ^ 0x80, right)
    )


def test_unknown_fields_are_ignored_unless_critical() -> None:
    """[A19] All type numbers that have no meaning yet."""
    for kind in range(16, 128):
        assert decode_parameters_untrusted(tlv(kind, "0102") * 2) == Parameters()
        assert not decodes(tlv(kind | 0x80, "0102"))
    assert not decodes(tlv(0x80, ""))


@pytest.mark.parametrize("place", [1, 2, 30, 63])
def test_padding_other_than_zero_is_refused(place: int) -> None:
    """[A19] After type 0 everything is zero."""
    data = bytearray(64)
    data[place] = 1
    assert not decodes(bytes(data)), place
    assert not decodes(tlv(0x0D, "01") + bytes(data))


def test_features_keep_bits_that_are_not_known_yet() -> None:
    """[A19] An offer of a later version is judged by the bits both know."""
    assert decode_parameters_untrusted(tlv(0x84, "ffffffff")).features == 0xFFFFFFFF


def test_an_absent_announcement_and_a_zero_one_are_the_same() -> None:
    """[A16] PSK_NEXT of value 0 announces nothing."""
    assert not decode_parameters_untrusted(tlv(0x0D, "00")).psk_next
    assert decode_parameters_untrusted(tlv(0x0D, "01")).psk_next


@pytest.mark.parametrize(("size", "padded"), [(0, 64), (1, 64), (64, 64), (65, 128), (512, 512)])
def test_padding_fills_to_steps_of_64(size: int, padded: int) -> None:
    """[H14] Lengths of messages tell next to nothing of their content."""
    data = b"x" * size
    assert pad_parameters(data) == data + bytes(padded - size)


def test_a_push_holds_addresses_routes_and_servers() -> None:
    """[E10] What `encode_push` writes is what the peer reads."""
    data = encode_push(WHOLE.addresses, WHOLE.routes, WHOLE.dns, WHOLE.domains)
    told = decode_parameters_untrusted(data)
    assert (told.addresses, told.routes, told.dns) == (WHOLE.addresses, WHOLE.routes, WHOLE.dns)
    assert told.domains == WHOLE.domains
    assert isinstance(told.dns[0], IPv4Address)
    assert isinstance(told.dns[1], IPv6Address)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_parameters_raise_nothing_but_malformed(data: bytes) -> None:
    """[A19, H3] Whatever a peer sends inside the box."""
    decodes(data)


# --- what two ends agree on ---


def offer(**said: object) -> Parameters:
    return replace(
        Parameters(versions=(1,), suites=(1, 2), mtu=1420, features=int(OWN.features), epoch=bytes(8)),
        **said,  # type: ignore[arg-type]
    )


def refuses_offer(offered: Parameters, own: Capabilities = OWN) -> bool:
    with pytest.raises(RejectedMessage) as caught:
        accept_offer(offered, own, 1)
    return caught.value.reason == "hs_param"


def refuses_choice(choice: Parameters, own: Capabilities = OWN) -> bool:
    with pytest.raises(RejectedMessage) as caught:
        accept_choice(choice, own, 1)
    return caught.value.reason == "hs_param"


@pytest.mark.parametrize(
    ("offered", "own", "chosen"),
    [
        ((1, 2), (AES, CHACHA), AES),
        ((2, 1), (CHACHA, AES), AES),
        ((2,), (AES, CHACHA), CHACHA),
        ((1, 2), (CHACHA,), CHACHA),
        ((2,), (CHACHA,), CHACHA),
        ((1,), (AES,), AES),
        ((9, 77, 2), (AES, CHACHA), CHACHA),
    ],
)
def test_aes_is_chosen_if_and_only_if_both_have_it(
    offered: tuple[int, ...], own: tuple[Suite, ...], chosen: Suite
) -> None:
    """[A18] With AES on both sides, on one, on none, forced, and beside unknown suites."""
    assert accept_offer(offer(suites=offered), replace(OWN, suites=own), 1).suite is chosen


@pytest.mark.parametrize(
    ("offered", "own"), [((), (AES, CHACHA)), ((9,), (AES, CHACHA)), ((1,), (CHACHA,)), ((2,), (AES,))]
)
def test_an_offer_without_a_common_suite_is_refused(offered: tuple[int, ...], own: tuple[Suite, ...]) -> None:
    """[A18] Unknown suites only, or forced ones that differ."""
    assert refuses_offer(offer(suites=offered), replace(OWN, suites=own))


@pytest.mark.parametrize("chosen", [(), (9,), (1, 2), (1, 1)])
def test_a_choice_is_exactly_one_suite_that_we_know(chosen: tuple[int, ...]) -> None:
    """[A18] None, an unknown one and two are refused."""
    assert refuses_choice(offer(suites=chosen))


def test_a_choice_of_a_suite_we_did_not_offer_is_refused() -> None:
    """[A18] Known is not enough."""
    assert accept_choice(offer(suites=(2,)), replace(OWN, suites=(CHACHA,)), 1).suite is CHACHA
    assert refuses_choice(offer(suites=(1,)), replace(OWN, suites=(CHACHA,)))


def test_features_are_what_both_have() -> None:
    """The responder's choice is the AND."""
    agreed = accept_offer(offer(features=0xFFFFFFFD), OWN, 1)
    assert agreed.features == OWN.features
    agreed = accept_offer(offer(features=int(Feature.TUN)), OWN, 1)
    assert agreed.features == Feature.TUN


@pytest.mark.parametrize("features", [None, 0, int(Feature.TAP), int(Feature.CSUM)])
def test_ends_of_different_link_types_refuse_each_other(features: int | None) -> None:
    """TUN and TAP must agree, in the offer and in the choice."""
    assert refuses_offer(offer(features=features))
    assert refuses_choice(offer(suites=(1,), features=features))


def test_a_choice_of_features_we_did_not_offer_is_refused() -> None:
    """[A19] The responder cannot add to our offer, known bit or not."""
    assert refuses_choice(offer(suites=(1,), features=int(OWN.features | Feature.VNET)))
    assert refuses_choice(offer(suites=(1,), features=int(OWN.features) | 1 << 31))
    assert accept_choice(offer(suites=(1,), features=int(Feature.TUN)), OWN, 1).features == Feature.TUN


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (PaddingMode.NONE, None, PaddingMode.NONE),
        (PaddingMode.X16, None, PaddingMode.X16),
        (PaddingMode.X16, PaddingMode.FULL, PaddingMode.FULL),
        (PaddingMode.BUCKET, PaddingMode.NONE, PaddingMode.BUCKET),
    ],
)
def test_the_stronger_padding_holds(
    ours: PaddingMode, theirs: PaddingMode | None, agreed: PaddingMode
) -> None:
    """[D14] On both ends."""
    own = replace(OWN, padding=ours)
    assert accept_offer(offer(padding=theirs), own, 1).padding is agreed
    assert accept_choice(offer(suites=(1,), padding=theirs), own, 1).padding is agreed


@pytest.mark.parametrize(
    ("own", "theirs", "spoken", "is_downgraded"),
    [((1,), (1,), 1, False), ((1,), (1, 2), 1, False), ((1, 2), (1, 2), 1, True), ((1, 2), (1, 2), 2, False)],
)
def test_a_higher_version_that_both_list_is_noticed(
    own: tuple[int, ...], theirs: tuple[int, ...], spoken: int, is_downgraded: bool
) -> None:
    """[A20] Somebody between us may have pushed us down."""
    capabilities = replace(OWN, versions=own)
    assert accept_offer(offer(versions=theirs), capabilities, spoken).downgraded is is_downgraded
    choice = offer(versions=theirs, suites=(1,))
    assert accept_choice(choice, capabilities, spoken).downgraded is is_downgraded


def test_a_list_of_versions_without_the_one_spoken_is_refused() -> None:
    """[A20] Header and list contradict each other; an absent list contradicts nothing."""
    assert refuses_offer(offer(versions=(2, 3)))
    assert refuses_choice(offer(versions=(2, 3), suites=(1,)))
    assert accept_offer(offer(versions=()), OWN, 1).suite is AES
