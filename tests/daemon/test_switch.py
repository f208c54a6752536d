"""What frames peers of a TAP link may exchange: by the keys that decide for packets, and why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.site import BERLIN, LYON, OSLO
from vpnd.config import Config, load
from vpnd.control.reports import WhyStep
from vpnd.daemon import switch
from vpnd.daemon.wanted import wirings
from vpnd.plane.frames import FrameRules


def configured(folder: Path, routing: str = "forward = true", *, kind: str = "tap", more: str = "") -> Config:
    networks = "" if kind == "tap" else 'networks = ["10.1.0.{}/32"]\n'
    text = f'[interface]\ntype = "{kind}"\n[local]\nlisten = ["0.0.0.0:5180"]\n[routing]\n{routing}\n'
    for number, (name, key) in enumerate((("berlin", BERLIN), ("lyon", LYON), ("oslo", OSLO))):
        text += f'[peer.{name}]\npublic_key = "{key}"\n' + networks.format(number)
        text += more if name == "oslo" else ""
    (folder / "site.toml").write_text(text)
    return load("site", folder / "site.toml")


def relayed(config: Config) -> list[str]:
    return [wiring.name for wiring in wirings(config) if wiring.frames and wiring.frames.is_relayed]


def why(config: Config, name: str, **drops: int) -> list[WhyStep]:
    (peer,) = (peer for peer in config.peers if peer.name == name)
    return list(switch.why_steps(config, peer, drops))


@pytest.mark.parametrize(
    ("routing", "names"),
    [
        ("", []),
        ("forward = false\nclient_to_client = true", []),
        ("forward = true", ["berlin", "lyon", "oslo"]),
        ("forward = true\nclient_to_client = false", []),
    ],
)
def test_frames_go_from_peer_to_peer_where_packets_would(
    tmp_path: Path, routing: str, names: list[str]
) -> None:
    assert relayed(configured(tmp_path, routing)) == names


def test_an_isolated_peer_stays_apart_from_the_others_alone(tmp_path: Path) -> None:
    assert relayed(configured(tmp_path, more="isolated = true\n")) == ["berlin", "lyon"]


def test_who_is_yet_to_join_sends_no_frame_and_gets_none(tmp_path: Path) -> None:
    config = configured(tmp_path, more="invited_until = 2030-01-31T12:00:00Z\n")
    assert [wiring.frames for wiring in wirings(config)][2] == FrameRules(vlans=frozenset())


def test_packets_need_no_rules_for_frames(tmp_path: Path) -> None:
    config = configured(tmp_path, kind="tun")
    assert [wiring.frames for wiring in wirings(config)] == [None, None, None]
    assert why(config, "oslo", frame_isolated=1) == []


@pytest.mark.parametrize(
    ("routing", "more", "cause", "remedy"),
    [
        ("", "", "forward is off", "set routing.forward = true if peers shall reach each other"),
        (
            "forward = true\nclient_to_client = false",
            "isolated = true\n",
            "client_to_client is off",
            "set routing.client_to_client = true if peers shall reach each other",
        ),
        (
            "forward = true",
            "isolated = true\n",
            "it is isolated",
            "set peer.oslo.isolated = false if it shall reach other peers",
        ),
    ],
)
def test_why_names_the_key_that_keeps_a_peer_from_others(
    tmp_path: Path, routing: str, more: str, cause: str, remedy: str
) -> None:
    config = configured(tmp_path, routing, more=more)
    text = "oslo exchanges no frames with other peers"
    assert why(config, "oslo") == [WhyStep("frames", None, f"{text}: {cause}", remedy)]
    (refused,) = why(config, "oslo", frame_isolated=7)
    assert refused.text == f"{text} (7 frames refused): {cause}"


def test_why_tells_that_the_other_peer_is_the_isolated_one(tmp_path: Path) -> None:
    config = configured(tmp_path, more="isolated = true\n")
    assert why(config, "lyon") == []
    (step,) = why(config, "lyon", frame_isolated=3)
    assert step.text == "3 frames from lyon were for a peer that it exchanges none with"
    assert step.remedy == "set peer.oslo.isolated = false if they shall meet"
    assert why(configured(tmp_path), "lyon", frame_isolated=3) == []


def test_why_takes_a_foreign_address_alone_for_a_mistake(tmp_path: Path) -> None:
    config = configured(tmp_path)
    steps = why(config, "oslo", frame_source=1, frame_vlan=2, frame_storm=3, data_source=4)
    assert [(step.ok, step.text.split()[0]) for step in steps] == [(False, "1"), (None, "2"), (None, "3")]
    assert "peer.oslo.macs" in steps[0].remedy


def test_a_disabled_peer_is_no_other_to_reach(tmp_path: Path) -> None:
    text = f'[interface]\ntype = "tap"\n[local]\nlisten = ["0.0.0.0:1"]\n[peer.oslo]\npublic_key = "{OSLO}"\n'
    (tmp_path / "site.toml").write_text(text + f'[peer.lyon]\npublic_key = "{LYON}"\nenabled = false\n')
    assert why(load("site", tmp_path / "site.toml"), "oslo") == []
