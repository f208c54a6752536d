"""How a machine joins a hub: the token that invites it, and the one handshake that it makes by itself.

Knows the protocol, and a UDP socket. Knows no daemon, no packet mover and no configuration.
"""
