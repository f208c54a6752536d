"""What monitor prints: the dataclasses, their lines and their JSON Schema."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vpnd
from tests.control.strategies import reports
from vpnd.control import PeerState, decode_reply, encode_reply, from_json, to_json
from vpnd.control.events import EventState, LogEvent, MonitorEvent, PeerEvent, event_time

SCHEMA = json.loads((Path(vpnd.__file__).parent / "monitor.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KINDS: tuple[type[Any], ...] = typing.get_args(MonitorEvent)
NOW = event_time(1795293671.25)
BERLIN = PeerEvent(
    time=NOW,
    instance="site",
    peer="berlin",
    state="up",
    before="connecting",
    reason=None,
    endpoint="203.0.113.7:5180",
    handshakes=1,
)


def name_of(kind: type[Any]) -> str:
    fields: dict[str, dataclasses.Field[str]] = {field.name: field for field in dataclasses.fields(kind)}
    return str(fields["event"].default)


def test_an_event_is_exactly_this() -> None:
    assert json.dumps(to_json(BERLIN)) == (
        '{"event": "peer", "time": "2026-11-21T20:41:11.250Z", "instance": "site", "peer": "berlin", '
        '"state": "up", "before": "connecting", "reason": null, '
        '"endpoint": "203.0.113.7:5180", "handshakes": 1}'
    )
    VALIDATOR.validate(to_json(BERLIN))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
@settings(max_examples=15)
@given(data=st.data())
def test_every_event_survives_its_line(kind: type[Any], data: st.DataObject) -> None:
    event = data.draw(reports(kind))
    assert from_json(kind, decode_reply(encode_reply(event))) == event


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_the_schema_has_the_keys_of_each_kind_and_no_other(kind: type[Any]) -> None:
    keys = [field.name for field in dataclasses.fields(kind)]
    described = SCHEMA["$defs"][name_of(kind)]
    assert described["required"] == keys
    assert list(described["properties"]) == keys
    assert described["properties"]["event"] == {"const": name_of(kind)}


def test_the_schema_knows_every_kind_and_the_same_states() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    told = [each["if"]["properties"]["event"]["const"] for each in SCHEMA["allOf"]]
    assert told == [name_of(kind) for kind in KINDS]
    assert SCHEMA["$defs"]["state"]["enum"] == list(typing.get_args(PeerState))
    assert SCHEMA["$defs"]["peer"]["properties"]["state"]["enum"] == list(typing.get_args(EventState))


@pytest.mark.parametrize(
    "changes",
    [
        {"time": "2026-11-21 20:41"},
        {"state": "asleep"},
        {"before": "removed"},
        {"handshakes": -1},
        {"peer": None},
    ],
)
def test_the_schema_refuses_a_wrong_value(changes: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(to_json(BERLIN) | changes)


def test_the_schema_refuses_an_event_that_lacks_a_key_and_takes_one_of_a_later_version() -> None:
    whole = to_json(LogEvent(NOW, "site", None, "info", "ready", "0" * 32, "ready"))
    VALIDATOR.validate(whole | {"more": 1})
    VALIDATOR.validate({"event": "weather", "time": NOW, "instance": "site"})
    for key in whole:
        assert not VALIDATOR.is_valid({name: value for name, value in whole.items() if name != key}), key
