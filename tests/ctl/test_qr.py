from __future__ import annotations

import sys

import pytest

from vpnd.ctl.qr import draw, half_blocks
from vpnd.errors import ControlError


def test_two_rows_of_squares_stand_in_one_line() -> None:
    assert half_blocks([[True, False], [False, True], [True, True]]) == ["▄▀", "▄▄"]


def test_without_the_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qrcode", None)
    with pytest.raises(ControlError, match="python3-qrcode"):
        draw("x")
