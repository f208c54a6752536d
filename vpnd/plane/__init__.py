"""The packet mover's room: the C program under c/ and the Python that speaks with it.

Owns the plane socket's language and the shared counters. Refuses to know the handshake,
the configuration and the machine around it.
"""
