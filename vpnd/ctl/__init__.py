"""vpnctl: the operator's tool. One verb per file, a table of them in main.py."""
