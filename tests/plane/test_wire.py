"""wire.py says what wire.h says: a C program made from the header prints it, and both are compared."""

from __future__ import annotations

import re
import subprocess
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest

from vpnd.endpoint import Endpoint
from vpnd.plane import wire

HEADER_PATH = Path(wire.__file__).parent / "c" / "wire.h"
DEFINES = {
    "WIRE_VERSION": wire.VERSION,
    "WIRE_MESSAGE_MAX": wire.MESSAGE_MAX,
    "WIRE_DATAGRAM_MAX": wire.DATAGRAM_MAX,
    "WIRE_REPLY": wire.REPLY,
    "WIRE_EVENT": wire.EVENT,
    "WIRE_FDS_MAX": wire.FDS_MAX,
    "WIRE_SOCKETS_MAX": wire.SOCKETS_MAX,
    "WIRE_QUEUES_MAX": wire.QUEUES_MAX,
    "WIRE_NAME_SIZE": wire.NAME_SIZE,
    "WIRE_MACS_MAX": wire.MACS_MAX,
    "WIRE_VLANS_SIZE": wire.VLANS_SIZE,
    "COUNTERS_MAGIC": wire.COUNTERS_MAGIC,
    "COUNTERS_LAYOUT": wire.COUNTERS_LAYOUT,
    "COUNTERS_WORKERS_MAX": wire.COUNTERS_WORKERS_MAX,
    "COUNTERS_DROPS_MAX": wire.COUNTERS_DROPS_MAX,
    "COUNTERS_PEER_MAX": wire.COUNTERS_PEER_MAX,
    "CAPTURE_MAGIC": wire.CAPTURE_MAGIC,
    "CAPTURE_LAYOUT": wire.CAPTURE_LAYOUT,
    "CAPTURE_SLOTS": wire.CAPTURE_SLOTS,
    "CAPTURE_BYTES": wire.CAPTURE_BYTES,
    "CAPTURE_EVERY_PEER": wire.CAPTURE_EVERY_PEER,
    "CAPTURE_ALL": wire.CAPTURE_ALL,
}
# The header's enum, the prefix of its names, and our class.
ENUMS: dict[str, tuple[str, type[IntEnum | IntFlag]]] = {
    "wire_type": ("WIRE_", wire.WireType),
    "wire_link_type": ("WIRE_LINK_", wire.LinkType),
    "wire_offload": ("OFFLOAD_", wire.Offload),
    "capture_kind": ("CAPTURE_", wire.CaptureKind),
    "capture_way": ("CAPTURE_", wire.CaptureWay),
    "session_slot": ("SLOT_", wire.SessionSlot),
    "set_peer_flags": ("PEER_", wire.PeerFlag),
    "frames_flags": ("FRAMES_", wire.FramesFlag),
    "padding_mode": ("PADDING_", wire.PaddingMode),
    "session_end": ("SESSION_END_", wire.SessionEnd),
    "roam_state": ("ROAM_", wire.RoamState),
}


def _source() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER_PATH.read_text(), flags=re.DOTALL)


def _structs() -> dict[str, list[str]]:
    found = re.findall(r"^struct (\w+) \{(.*?)^\};", _source(), flags=re.DOTALL | re.MULTILINE)
    return {name: re.findall(r"(\w+)(?:\[\w+\])*;", body) for name, body in found}


def _enums() -> dict[str, list[str]]:
    found = re.findall(r"^enum (\w+) \{([^#]*?)\};", _source(), flags=re.DOTALL | re.MULTILINE)
    return {name: re.findall(r"([A-Z]\w+)", re.sub(r"=[^,}]*", "", body)) for name, body in found}


def _program() -> str:
    lines = ['#include "wire.h"', "#include <stdio.h>", "int main(void) {"]
    for struct, fields in _structs().items():
        lines.append(f'printf("size {struct} %zu\\n", sizeof(struct {struct}));')
        for field in fields:
            place = f"offsetof(struct {struct}, {field}), sizeof(((struct {struct} *)0)->{field})"
            lines.append(f'printf("field {struct}.{field} %zu %zu\\n", {place});')
    numbers = [name for names in _enums().values() for name in names]
    lines += [f'printf("number {name} %lld\\n", (long long){name});' for name in [*DEFINES, *numbers]]
    lines += [
        '#define X(name, value, text) printf("error %d %s %s\\n", value, #name, text);',
        "WIRE_ERRORS(X)",
        "#undef X",
        '#define X(name, text) printf("drop %d %s %s\\n", DROP_##name, #name, text);',
        "DROP_REASONS(X)",
        "return 0; }",
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("layout")
    (directory / "layout.c").write_text(_program())
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Werror", "-I", HEADER_PATH.parent, "-o", "layout", "layout.c"],
        cwd=directory,
        check=True,
    )
    output = subprocess.run([directory / "layout"], check=True, capture_output=True, text=True).stdout
    return output.splitlines()


def _lines(printed: list[str], kind: str) -> list[list[str]]:
    return [line.split(" ", 3)[1:] for line in printed if line.startswith(kind + " ")]


def test_every_struct_of_the_header_has_a_layout_of_its_size(printed: list[str]) -> None:
    ours = {layout.name: layout.size for layout in wire.LAYOUTS}
    assert ours == {name: int(size) for name, size in _lines(printed, "size")}
    assert len(ours) >= 25


def test_every_field_stands_where_the_compiler_puts_it(printed: list[str]) -> None:
    ours = {
        f"{layout.name}.{field}": place for layout in wire.LAYOUTS for field, place in layout.offsets.items()
    }
    assert ours == {name: (int(offset), int(size)) for name, offset, size in _lines(printed, "field")}


def test_every_number_has_its_name(printed: list[str]) -> None:
    theirs = {name: int(value) for name, value in _lines(printed, "number")}
    ours = dict(DEFINES)
    for prefix, members in ENUMS.values():
        ours |= {prefix + str(member.name).removeprefix("X"): int(member) for member in members}
    assert ours == theirs
    assert set(_enums()) == set(ENUMS)


def test_every_error_and_drop_reason_has_its_name_and_text(printed: list[str]) -> None:
    errors = {int(number): (name, text) for number, name, text in _lines(printed, "error")}
    drops = {int(number): (name, text) for number, name, text in _lines(printed, "drop")}
    assert errors == wire.ERRORS
    assert drops == dict(enumerate(wire.DROP_REASONS))


def test_an_unknown_error_is_named_by_its_number() -> None:
    assert wire.error_of(999)[0] == "error_999"


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(IPv4Address("192.0.2.7"), 5180),
        Endpoint(IPv6Address("2001:db8::7"), 65535),
        Endpoint(IPv6Address("fe80::7"), 1, 3),
        None,
    ],
)
def test_an_endpoint_is_read_as_it_was_written(endpoint: Endpoint | None) -> None:
    packed = wire.pack_endpoint(endpoint)
    assert len(packed) == 24
    assert wire.unpack_endpoint(packed) == endpoint


def test_an_ipv4_address_stands_first_and_is_filled_with_zeros() -> None:
    packed = wire.pack_endpoint(Endpoint(IPv4Address("192.0.2.7"), 0x1234))
    assert packed == b"\x04\0\x34\x12" + bytes(4) + b"\xc0\x00\x02\x07" + bytes(12)


@pytest.mark.parametrize(
    ("network", "packed"),
    [
        ("10.1.0.0/16", b"\x04\x10\0\0\x0a\x01" + bytes(14)),
        ("2001:db8::/32", b"\x06\x20\0\0\x20\x01\x0d\xb8" + bytes(12)),
        ("::/0", b"\x06\0\0\0" + bytes(16)),
    ],
)
def test_a_network_is_written_in_network_order(network: str, packed: bytes) -> None:
    assert wire.pack_network(ip_network(network)) == packed
