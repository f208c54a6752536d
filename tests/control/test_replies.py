import json
import math
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vpnd.control.capture
import vpnd.control.reports
import vpnd.control.status
from tests.control.strategies import reports
from tests.fakes.status_reports import BERLIN_KEY, status
from vpnd.control import (
    EXIT_CODES,
    HealthFinding,
    StatusReport,
    decode_reply,
    encode_error,
    encode_reply,
    exit_code_of,
    from_json,
    is_healthy,
    no_such_peer,
    parse_json,
    to_json,
    to_text,
)
from vpnd.control.reports import PingEcho, PingSummary, WhyReport, WhyStep
from vpnd.errors import ControlError

REPORTS = [
    kind
    for module in (vpnd.control.capture, vpnd.control.reports, vpnd.control.status)
    for name, kind in vars(module).items()
    if name.endswith("Report") or name.startswith("Ping")
]


@pytest.mark.parametrize("kind", REPORTS, ids=lambda kind: str(kind.__name__))
@settings(max_examples=15)
@given(data=st.data())
def test_every_report_survives_its_line(kind: type, data: st.DataObject) -> None:
    report = data.draw(reports(kind))
    line = encode_reply(report)
    assert line.count(b"\n") == 1
    assert from_json(kind, decode_reply(line)) == report


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_the_text_is_that_of_the_standard_encoder(value: object) -> None:
    assert to_text(value) == json.dumps(value)
    assert to_text(value, is_indented=True, is_ascii=False) == json.dumps(value, indent=2, ensure_ascii=False)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_in_json_is_never_written(number: float) -> None:
    for is_indented in (False, True):
        with pytest.raises(ValueError, match="JSON"):
            to_text({"a": [number]}, is_indented=is_indented)


@given(reports(StatusReport))
def test_the_text_of_a_report_is_that_of_its_json(report: object) -> None:
    assert to_text(report) == json.dumps(to_json(report))
    assert to_text(report, is_indented=True) == json.dumps(to_json(report), indent=2)


def test_any_mapping_is_an_object() -> None:
    assert to_text({"a": MappingProxyType({"b": 1})}) == '{"a": {"b": 1}}'
    assert to_text(MappingProxyType({"b": 1}), is_indented=True) == '{\n  "b": 1\n}'


def test_a_reply_is_one_object_under_ok() -> None:
    assert encode_reply(WhyStep("name", None, "ü", "x")) == (
        b'{"ok": {"name": "name", "ok": null, "text": "\\u00fc", "remedy": "x"}}\n'
    )


def test_an_error_is_code_and_text_and_raised_when_read() -> None:
    line = encode_error(ControlError("config", "a.toml:1: x\na.toml:2: y"))
    assert line == b'{"error": {"code": "config", "text": "a.toml:1: x\\na.toml:2: y"}}\n'
    with pytest.raises(ControlError, match=r"a\.toml:1: x\na\.toml:2: y") as caught:
        decode_reply(line)
    assert caught.value.code == "config"


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"nonsense", b'{"error": "no"}', b'{"error": {"code": 1, "text": "x"}}']
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(ControlError, match="the daemon's reply") as caught:
        decode_reply(line)
    assert caught.value.code == "refused"


def test_a_reader_skips_keys_it_does_not_know() -> None:
    document = to_json(status())
    document["instances"][0]["leases"] = [{"new": 1}]
    assert from_json(StatusReport, document) == status()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"peers": 3}, "instances[0].peers: a number, expected an array"),
        ({"drops": []}, "instances[0].drops: an array, expected an object"),
        ({"drops": {"x": "many"}}, "instances[0].drops.x: a string, expected a whole number"),
        ({"link": "tun"}, "instances[0].link: a string, expected an object"),
        ({"state": "asleep"}, 'instances[0].state: "asleep" is none of starting, up, degraded, stopping'),
    ],
)
def test_a_report_of_another_shape_is_refused_by_its_place(change: dict[str, object], text: str) -> None:
    document = to_json(status())
    document["instances"][0].update(change)
    with pytest.raises(ValueError) as caught:
        from_json(StatusReport, document)
    assert str(caught.value) == text


def test_a_report_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="the value: null, expected an object"):
        from_json(StatusReport, None)


def test_the_status_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match=r'schema: "vpnd\.status/2" is none of vpnd\.status/1'):
        from_json(StatusReport, {"schema": "vpnd.status/2", "instances": []})


def test_infinity_is_no_number_of_a_line() -> None:
    with pytest.raises(ValueError, match="-Infinity is no JSON number"):
        parse_json(b"[-Infinity]")


def test_only_one_peer_is_kept_by_name_or_public_key() -> None:
    (site,) = status().instances
    assert [peer.name for peer in site.with_only("berlin").peers] == ["berlin"]
    assert [peer.name for peer in site.with_only(BERLIN_KEY).peers] == ["berlin"]


def test_a_peer_nobody_has_is_answered_with_those_there_are() -> None:
    (site,) = status().instances
    with pytest.raises(ControlError, match=r'site has no peer "rome"; it has berlin, lyon, oslo\Z') as caught:
        site.with_only("rome")
    assert caught.value.code == "no-such-peer"
    assert str(no_such_peer("site", "a", ())) == 'site has no peer "a"; it has none'
    many = tuple(f"p{number}" for number in range(11))
    assert str(no_such_peer("site", "a", many)).endswith("p8, p9, …")


def test_an_instance_is_healthy_while_every_enabled_peer_is_up_and_nothing_was_found() -> None:
    (site,) = status().instances
    up, _, down = site.peers
    finding = HealthFinding("clock", "the clock went back", "set it")
    assert not is_healthy(site)
    assert is_healthy(status(peers=(up,)).instances[0])
    assert is_healthy(status(peers=()).instances[0])
    assert not is_healthy(status(peers=(up, down)).instances[0])
    assert not is_healthy(status(peers=(up,), state="degraded").instances[0])
    assert not is_healthy(status(peers=(up,), health=(finding,)).instances[0])
    notice = HealthFinding("path-small", "the path is narrow", "", level="notice")
    assert is_healthy(status(peers=(up,), health=(notice,)).instances[0])
    assert not is_healthy(status(peers=(up,), health=(notice, finding)).instances[0])


def test_the_cause_is_the_first_check_that_failed() -> None:
    unknown, fine = WhyStep("a", None, ""), WhyStep("b", True, "")
    first, second = WhyStep("c", False, ""), WhyStep("d", False, "")
    assert WhyReport("x", (unknown, fine, first, second)).cause is first
    assert WhyReport("x", (unknown, fine)).cause is None


def test_a_ping_summary_counts_what_was_answered() -> None:
    echoes = (
        PingEcho(1, 56, None, 10.0),
        PingEcho(2, 56, None, None),
        PingEcho(3, 56, None, 40.0),
    )
    assert PingSummary.of("berlin", echoes) == PingSummary("berlin", 3, 2, 10.0, 25.0, 40.0)
    assert PingSummary.of("berlin", echoes[1:2]) == PingSummary("berlin", 1, 0, None, None, None)


def test_every_code_has_its_documented_exit_status() -> None:
    assert EXIT_CODES == {
        "refused": 1,
        "unhealthy": 1,
        "usage": 2,
        "not-running": 3,
        "no-such-peer": 4,
        "no-such-instance": 4,
        "not-permitted": 5,
        "timed-out": 6,
        "config": 78,
    }
    assert [exit_code_of(code) for code in ("config", "of-a-newer-daemon")] == [78, 1]
