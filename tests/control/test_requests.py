import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.control.strategies import requests
from vpnd.control import (
    REQUEST_LIMIT,
    Metrics,
    Monitor,
    Pcap,
    Ping,
    Reconnect,
    Reload,
    Request,
    Show,
    Status,
    Wait,
    Why,
    decode_request,
    encode_error,
    encode_request,
)
from vpnd.errors import ControlError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b'{"do": "status"}\n', Status()),
        (b'{"do": "status", "peer": "berlin"}\n', Status("berlin")),
        (b'{"do": "show", "topic": "drops"}\n', Show("drops")),
        (b'{"do": "why", "peer": "berlin"}\n', Why("berlin")),
        (b'{"do": "ping", "peer": "berlin", "count": 3, "size": 1000}\n', Ping("berlin", 3, 1000)),
        (b'{"do": "reload", "dry_run": true}\n', Reload(dry_run=True)),
        (b'{"do": "reconnect", "peer": "berlin"}\n', Reconnect("berlin")),
        (b'{"do": "wait", "timeout_s": 2.5}\n', Wait(None, 2.5)),
        (b'{"do": "metrics"}\n', Metrics()),
        (b'{"do": "monitor", "peer": "berlin"}\n', Monitor("berlin")),
        (b'{"do": "pcap", "inner": true, "outer": true, "drops": false}\n', Pcap(outer=True)),
    ],
)
def test_each_verb_has_one_line_and_is_read_back_from_it(line: bytes, request_: Request) -> None:
    assert encode_request(request_) == line
    assert decode_request(line) == request_


@given(requests)
@settings(max_examples=200)
def test_every_request_survives_its_line(request_: Request) -> None:
    line = encode_request(request_)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_


def test_absent_options_take_their_defaults() -> None:
    assert decode_request(b'{"do": "ping", "peer": "berlin"}') == Ping("berlin", 5, 56)
    assert decode_request(b'{"do": "reload"}') == Reload(dry_run=False)
    assert decode_request(b'{"do": "wait", "peer": null}') == Wait(None, 30.0)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "the request is not JSON: "),
        (b"\xff\n", "the request is not JSON: 'utf-8' codec"),
        (b'{"do": "status"', "the request is not JSON: "),
        (b"\xef\xbb\xbf{}", "the request is not JSON: "),
        (b'{"do": "status"}'.decode().encode("utf-16"), "the request is not JSON: "),
        (b"[" * 60000, "the request is not JSON: nested too deeply"),
        (b'{"do": "wait", "timeout_s": NaN}', "the request is not JSON: NaN is no JSON number"),
        (b'{"do": "status", "do": "reload"}', "a key stands twice in one object"),
        (b'["status"]', "the request is no JSON object"),
        (b"{}", 'the request has no known verb; "do" is one of status, show, why, ping, reload'),
        (b'{"do": "halt"}', "the request has no known verb"),
        (b'{"do": ["status"]}', "the request has no known verb"),
        (b'{"do": "why"}', "why: peer: missing"),
        (b'{"do": "why", "peer": null}', "why: peer: null, expected a string"),
        (b'{"do": "why", "peer": 7}', "why: peer: a number, expected a string"),
        (b'{"do": "why", "peer": ""}', '"" is no name of a peer'),
        (b'{"do": "why", "peer": "a\\nb"}', '"a\\nb" is no name of a peer'),
        (b'{"do": "why", "peer": "\\ud800"}', '"\\ud800" is no name of a peer'),
        (b'{"do": "status", "peer": "%s"}' % (b"x" * 256), "is no name of a peer"),
        (b'{"do": "status", "\\ud800": 1}', 'status: unknown key "\\ud800"'),
        (b'{"do": "status", "verbose": true}', 'status: unknown key "verbose"'),
        (b'{"do": "show", "topic": "weather"}', 'show: topic: "weather" is none of peers, routes, groups'),
        (b'{"do": "show", "topic": []}', "show: topic: an array, expected a string"),
        (b'{"do": "reload", "dry_run": 1}', "reload: dry_run: a number, expected true or false"),
        (b'{"do": "pcap", "inner": false}', "pcap: none of inner, outer and drops is asked for"),
        (b'{"do": "ping", "peer": "a", "count": 0}', "count: 0 is outside 1 to 100000"),
        (b'{"do": "ping", "peer": "a", "count": 1.5}', "ping: count: a number, expected a whole number"),
        (b'{"do": "ping", "peer": "a", "count": true}', "ping: count: a boolean, expected a whole number"),
        (b'{"do": "ping", "peer": "a", "size": 1401}', "size: 1401 is outside 0 to 1400"),
        (b'{"do": "ping", "peer": "a", "size": -1}', "size: -1 is outside 0 to 1400"),
        (b'{"do": "wait", "timeout_s": -0.1}', "timeout_s: -0.1 is outside 0 to 604800"),
        (b'{"do": "wait", "timeout_s": "1"}', "wait: timeout_s: a string, expected a number"),
        (b'{"do": "wait", "timeout_s": {}}', "wait: timeout_s: an object, expected a number"),
        (b'{"do": "wait", "timeout_s": 1e999}', "wait: timeout_s: the number is too large"),
        (b'{"do": "wait", "timeout_s": 1%s}' % (b"0" * 400), "wait: timeout_s: the number is too large"),
    ],
)
def test_what_breaks_the_language_is_refused_by_name(line: bytes, text: str) -> None:
    with pytest.raises(ControlError) as caught:
        decode_request(line)
    assert caught.value.code == "usage"
    assert text in caught.value.text


def test_a_line_may_be_as_long_as_the_limit_and_no_longer() -> None:
    line = b'{"do": "status"}'
    assert decode_request(line.ljust(REQUEST_LIMIT)) == Status()
    with pytest.raises(ControlError, match="65537 bytes, the limit is 65536") as caught:
        decode_request(line.ljust(REQUEST_LIMIT + 1))
    assert caught.value.code == "usage"


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_do_worse_than_a_control_error(line: bytes) -> None:
    assert_is_answered(line)


@given(st.sampled_from(["status", "show", "why", "ping", "wait", "reload"]), json_values)
def test_no_value_of_an_option_does_worse_than_a_control_error(verb: str, value: Any) -> None:
    for key in ("peer", "topic", "count", "size", "timeout_s", "dry_run"):
        assert_is_answered(json.dumps({"do": verb, "peer": "a", key: value}).encode())


def assert_is_answered(line: bytes) -> None:
    """Either it is a request that makes a line again, or an error that does."""
    try:
        answer = encode_request(decode_request(line))
    except ControlError as error:
        answer = encode_error(error)
    assert answer.endswith(b"\n")


def test_a_request_out_of_its_range_cannot_be_made() -> None:
    with pytest.raises(ControlError, match="timeout_s: nan is outside"):
        Wait(None, float("nan"))
