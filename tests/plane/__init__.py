"""The plane's tests: its Python against scripts and memory, its program over its own socket."""
