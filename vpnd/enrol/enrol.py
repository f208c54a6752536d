"""Tells a hub our key under the key of its token, and makes sure that it knows us by it afterwards.

Owns how long is waited, and what is said when it fails. A lost answer is no failure: a handshake under
our own key shows how it went.
"""

from __future__ import annotations

from collections.abc import Callable

from vpnd.endpoint import Endpoint
from vpnd.enrol.caller import Caller
from vpnd.enrol.line import Line, UdpLine
from vpnd.enrol.token import Token
from vpnd.errors import ControlError
from vpnd.keys import Identity, Secret
from vpnd.protocol.constants import EnrolAnswer

_ENROL_S = 8.0  # four handshakes, of which the first three went lost
_PROVE_S = 4.0


def enrol(
    token: Token,
    own: Identity,
    endpoint: Endpoint,
    *,
    may_be_known: bool,
    open_line: Callable[[Endpoint], Line] = UdpLine,
) -> None:
    """Tells the hub our key; returns when it is known to be known. Raises ControlError where it is not.

    `may_be_known` says that an earlier try may have come further than we heard of.
    """
    knock = token.knock if token.knock is not None else Secret.zero()
    is_tap = token.terms.link_type == "tap"

    def call(identity: Identity) -> Caller:
        return Caller(open_line(endpoint), identity, token.hub, endpoint, knock=knock, is_tap=is_tap)

    # Of a join before this one the hub may know us, and then the token no longer.
    if may_be_known:
        with call(own) as caller:
            if caller.connects(_PROVE_S):
                return
    with call(Identity.from_private(token.once)) as caller:
        answer = caller.enrol(own.public, _ENROL_S)
    match answer:
        case EnrolAnswer.DONE:
            return
        case EnrolAnswer.REFUSED:
            raise ControlError("refused", f"{token.terms.name} refuses the key of this machine; see its log")
        case EnrolAnswer.NOT_NOW:
            raise ControlError("refused", f"{token.terms.name} cannot write down who joins; see its log")
    # The answer may have been lost: whoever knows us answers under our own key.
    with call(own) as caller:
        if not caller.connects(_PROVE_S):
            raise ControlError(
                "timed-out",
                f"no answer from {endpoint}: the token was used before, has expired or was taken back, "
                f"or no UDP goes there and back; the log of {token.terms.name} tells which",
            )
