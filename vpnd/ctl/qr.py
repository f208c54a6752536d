"""Draws a QR code with half blocks: two rows of it in each line of text.

Owns the drawing. What the squares are is known to python3-qrcode, which not every machine has.
"""

from __future__ import annotations

from vpnd.errors import ControlError

# The upper square and the lower one; dark is the terminal's background, as on most of them.
_BLOCKS = {(True, True): " ", (True, False): "▄", (False, True): "▀", (False, False): "█"}


def draw(text: str) -> list[str]:
    """Gives the lines. Raises ControlError where the library is not installed."""
    try:
        import qrcode  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise ControlError("refused", "no QR codes without python3-qrcode; apt install it") from None
    code = qrcode.QRCode(border=4, error_correction=qrcode.constants.ERROR_CORRECT_L)
    code.add_data(text)
    return half_blocks(code.get_matrix())


def half_blocks(squares: list[list[bool]]) -> list[str]:
    """Gives one line for two rows of squares, of which True is dark."""
    rows = squares if len(squares) % 2 == 0 else [*squares, [False] * len(squares[0])]
    return [
        "".join(_BLOCKS[upper, lower] for upper, lower in zip(one, other, strict=True))
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]
