"""Stacks are counted per program and drawn no wider than they are."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from benchmarks.flame import draw, fold

PRINTED = """\
vpnd-plane  4711
\t    55d0c0de seal+0x10 (/usr/bin/vpnd-plane)
\t    55d0beef put_all (/usr/bin/vpnd-plane)

vpnd-plane  4711
\t    ffffffff do_syscall_64.isra.0 ([kernel.kallsyms])
\t    7f00 [unknown] (/usr/lib/libc.so.6)

vpnd-plane  4711
\t    55d0c0de seal+0x20 (/usr/bin/vpnd-plane)
\t    55d0beef put_all (/usr/bin/vpnd-plane)

python3 99
\t    7f00 eval (/usr/bin/python3)
"""


def test_stacks_are_counted_outermost_first_and_others_left_out() -> None:
    assert fold(PRINTED.splitlines(), ["vpnd-plane"]) == {
        ("vpnd-plane", "put_all", "seal"): 2,
        ("vpnd-plane", "[libc.so.6]", "do_syscall_64"): 1,
    }


def test_a_frame_is_as_wide_as_its_share() -> None:
    svg = draw(fold(PRINTED.splitlines(), ["vpnd-plane"]), "a < b")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    shares = {
        str(group.findtext(f"{space}title")): float(group.find(f"{space}rect").get("width", 0))  # type: ignore[union-attr]
        for group in root.iter(f"{space}g")
    }
    assert shares["vpnd-plane: 100.0 %"] == 1199.7
    assert shares["seal: 66.7 %"] == 799.7
    assert "a < b; 3 samples" in "".join(root.itertext())


def test_nothing_sampled_is_an_empty_drawing() -> None:
    assert "0 samples" in draw(fold([], []), "none")
