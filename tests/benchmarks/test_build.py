"""Another choice of AEAD in the plane's own build."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.build import variant_commands
from tests.plane.building import BuildError

COMPILE = ["cc", "-O3", "-MQ", "p/aead.c.o", "-MF", "p/aead.c.o.d", "-o", "p/aead.c.o", "-c", "../c/aead.c"]
OTHER = ["cc", "-O3", "-MQ", "p/udp.c.o", "-MF", "p/udp.c.o.d", "-o", "p/udp.c.o", "-c", "../c/udp.c"]
LINK = ["cc", "-o", "c/vpnd-plane", "p/aead.c.o", "p/udp.c.o", "-pie"]


def test_one_source_is_replaced_and_all_flags_stay() -> None:
    compiling, linking = variant_commands([COMPILE, OTHER, LINK], Path("/b/aead_copy.c"), Path("/o/copy"))
    assert compiling == [
        *("cc", "-O3", "-MQ", "/o/copy.o", "-MF", "/o/copy.o.d", "-o", "/o/copy.o", "-c", "/b/aead_copy.c")
    ]
    assert linking == ["cc", "-o", "/o/copy", "/o/copy.o", "p/udp.c.o", "-pie"]


@pytest.mark.parametrize("commands", [[OTHER, LINK], [COMPILE, OTHER], [COMPILE, COMPILE, LINK]])
def test_a_build_of_another_shape_is_refused(commands: list[list[str]]) -> None:
    with pytest.raises(BuildError):
        variant_commands(commands, Path("/b/aead_copy.c"), Path("/o/copy"))
