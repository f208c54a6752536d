"""Where one instance keeps its things: the answer to the daemon's command line.

Owns the paths. Knows nothing of what stands in the files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CONFIG_DIR = Path("/etc/vpnd")
RUNTIME_DIR = Path("/run/vpnd")
STATE_DIR = Path("/var/lib/vpnd")


@dataclass(frozen=True, slots=True)
class Settings:
    """The instance's name and paths; `runtime_dir` and `state_dir` are the instance's own."""

    instance: str
    config_file: Path
    runtime_dir: Path
    state_dir: Path
    log_level: str

    @property
    def control_socket(self) -> Path:
        return self.runtime_dir / "control.sock"

    @property
    def plane_socket(self) -> Path:
        return self.runtime_dir / "plane.sock"

    @property
    def failure_note(self) -> Path:
        """Stands from a start that a mistake in the configuration ended to the next start or teardown."""
        return self.runtime_dir / "failed"

    @property
    def credentials(self) -> Path | None:
        """Systemd's folder of credentials for this unit, where there is one."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(directory) if directory else None
