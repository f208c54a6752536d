"""The protocol, pure: bytes and `now` in, actions out.

Owns both handshake messages, sessions' policy, timers and limits. No socket, clock, log or
randomness of its own. `Device` is the door; the rest of the room is for its tests.
"""
