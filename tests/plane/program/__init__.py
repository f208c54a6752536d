"""The program vpnd-plane driven over its socket, with a real link and real datagrams."""
