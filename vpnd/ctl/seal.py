"""Seals a key into a credential of systemd, which alone opens it again, on this machine, for the unit.

Owns how systemd-creds is called. The key reaches it through a pipe, never through a file.
"""

from __future__ import annotations

import binascii
import os
import subprocess
from pathlib import Path
from typing import Final

from vpnd.errors import KeyFileError
from vpnd.keys import Secret, write_new_file

PROGRAM: Final = "systemd-creds"
SEALED_WITH: Final = ("host", "tpm2", "host+tpm2", "auto")


def seal(secret: Secret, name: str, file: Path, sealed_with: str, program: str = PROGRAM) -> None:
    """Writes the sealed key to a new file of mode 0600. Raises KeyFileError.

    `name` is what the unit has to call it: it is part of what is sealed.
    """
    if os.path.lexists(file):
        raise KeyFileError(f"{file}: exists already; a key is never overwritten")
    words = (program, "encrypt", f"--name={name}", f"--with-key={sealed_with}", "-", "-")
    try:
        line = binascii.b2a_base64(secret.buffer())
        done = subprocess.run(words, input=line, capture_output=True, check=False)
    except FileNotFoundError:
        raise KeyFileError(
            f"{program}: not found; sealing needs systemd 250 or newer, see systemctl --version"
        ) from None
    except OSError as error:
        raise KeyFileError(f"{program}: {error.strerror}") from error
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise KeyFileError(f"{program}: {said[-1] if said else f'ended with {done.returncode}'}")
    write_new_file(file, done.stdout)
