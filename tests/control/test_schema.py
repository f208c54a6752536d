import copy
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import vpnd
from tests.fakes.status_reports import BERLIN_KEY, LYON_KEY, OSLO_KEY, SITE_KEY, status
from vpnd.control import (
    HealthFinding,
    InstanceReport,
    InstanceState,
    LinkReport,
    PeerReport,
    PeerState,
    PlaneReport,
    PreviousKeyReport,
    StatusReport,
    to_json,
)

SCHEMA = json.loads((Path(vpnd.__file__).parent / "control.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FINDING = HealthFinding("clock-back", "the clock went back an hour", "set the clock")
OBJECTS: list[tuple[str, type[Any]]] = [
    ("instance", InstanceReport),
    ("link", LinkReport),
    ("plane", PlaneReport),
    ("peer", PeerReport),
    ("finding", HealthFinding),
    ("previous_key", PreviousKeyReport),
]


def document(**changes: Any) -> Any:
    return to_json(status(**{"health": (FINDING,)} | changes))


def test_the_json_of_a_status_is_exactly_this() -> None:
    (_, _, oslo) = status().instances[0].peers
    assert document(peers=(oslo,)) == {
        "schema": "vpnd.status/1",
        "instances": [
            {
                "instance": "site",
                "state": "up",
                "uptime_s": 273659.0,
                "link": {
                    "name": "vpn-site",
                    "type": "tun",
                    "mtu": 1420,
                    "addresses": ["10.255.0.1/30", "fd00:ff::1/64"],
                },
                "listen": ["0.0.0.0:5180", "[::]:5180"],
                "public_key": SITE_KEY,
                "plane": {
                    "uptime_s": 781200.0,
                    "aead": "aes-256-gcm (ipsec-mb)",
                    "offload": ["udp-gso", "udp-gro", "tun-vnet"],
                },
                "peers": [
                    {
                        "name": "oslo",
                        "public_key": OSLO_KEY,
                        "state": "down",
                        "reason": "does not resolve (NXDOMAIN)",
                        "endpoint": "oslo.example.net",
                        "handshake_age_s": None,
                        "handshakes": 0,
                        "rtt_ms": None,
                        "rx_bytes": 0,
                        "rx_packets": 0,
                        "tx_bytes": 0,
                        "tx_packets": 0,
                        "suite": None,
                        "networks": ["10.40.0.0/16"],
                        "drops": {},
                        "path_mtu": None,
                    }
                ],
                "drops": {"data_replay": 3, "rx_malformed": 17},
                "health": [
                    {
                        "code": "clock-back",
                        "text": "the clock went back an hour",
                        "remedy": "set the clock",
                        "level": "warning",
                        "peer": None,
                    }
                ],
                "previous_key": None,
            }
        ],
    }


def test_the_keys_come_in_the_documented_order() -> None:
    text = json.dumps(document())
    places = [text.index(f'"{key}"') for key in ("schema", "instance", "state", "uptime_s", "link", "listen")]
    assert places == sorted(places)
    assert {BERLIN_KEY, LYON_KEY} <= {peer["public_key"] for peer in document()["instances"][0]["peers"]}


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"link": None, "plane": None, "peers": (), "health": (), "drops": {}},
        {"previous_key": PreviousKeyReport(OSLO_KEY, 12.5)},
    ],
)
def test_reports_obey_the_schema(changes: dict[str, Any]) -> None:
    VALIDATOR.validate(document(**changes))


def test_the_schema_allows_a_plane_of_which_nothing_is_known() -> None:
    VALIDATOR.validate(document(plane=PlaneReport(None, None, ())))


@pytest.mark.parametrize(("name", "kind"), OBJECTS)
def test_the_schema_requires_every_key_a_report_has_and_no_other(name: str, kind: type[Any]) -> None:
    keys = [field.name for field in dataclasses.fields(kind)]
    assert SCHEMA["$defs"][name]["required"] == keys
    assert list(SCHEMA["$defs"][name]["properties"]) == keys


def test_the_schema_knows_the_same_states() -> None:
    assert SCHEMA["$defs"]["peer"]["properties"]["state"]["enum"] == list(typing.get_args(PeerState))
    assert SCHEMA["$defs"]["instance"]["properties"]["state"]["enum"] == list(typing.get_args(InstanceState))
    assert SCHEMA["required"] == [field.name for field in dataclasses.fields(StatusReport)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "vpnd.status/2"),
        (("instances",), None),
        (("instances", 0, "state"), "asleep"),
        (("instances", 0, "uptime_s"), -1),
        (("instances", 0, "link", "type"), "tunnel"),
        (("instances", 0, "listen"), "0.0.0.0:5180"),
        (("instances", 0, "public_key"), "c2l0ZQ=="),
        (("instances", 0, "plane", "offload"), None),
        (("instances", 0, "peers", 0, "state"), "unknown"),
        (("instances", 0, "peers", 0, "handshakes"), None),
        (("instances", 0, "peers", 0, "rx_bytes"), 1.5),
        (("instances", 0, "peers", 0, "rtt_ms"), "14 ms"),
        (("instances", 0, "peers", 0, "drops"), {"data_replay": -1}),
        (("instances", 0, "health", 0, "code"), ""),
        (("instances", 0, "health", 0, "level"), "error"),
    ],
)
def test_the_schema_refuses_a_wrong_value(path: tuple[Any, ...], value: object) -> None:
    broken = document()
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not VALIDATOR.is_valid(broken)


def test_the_schema_refuses_any_object_that_lacks_a_key() -> None:
    whole = document()
    objects: list[tuple[Any, ...]] = [
        (),
        ("instances", 0),
        ("instances", 0, "link"),
        ("instances", 0, "plane"),
    ]
    objects += [("instances", 0, "peers", 0), ("instances", 0, "health", 0)]
    for path in objects:
        for key in _at(whole, path):
            broken = copy.deepcopy(whole)
            del _at(broken, path)[key]
            assert not VALIDATOR.is_valid(broken), (path, key)


def test_the_schema_allows_keys_of_a_later_version() -> None:
    newer = document()
    newer["instances"][0]["peers"][0]["path_mtu"] = 1452
    VALIDATOR.validate(newer)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value
