"""Starts the real daemon with time constants of a test and a wall clock that is wrong by some seconds:

launcher.py '{"rekey_after_s": 2}' SHIFT ARGUMENTS…
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

from vpnd.daemon.main import parse, run
from vpnd.protocol.constants import TIMERS

if __name__ == "__main__":
    timers = dataclasses.replace(TIMERS, **json.loads(sys.argv[1]))
    shift_ns = int(float(sys.argv[2]) * 1e9)
    sys.exit(run(parse(sys.argv[3:]), timers, tell_time=lambda: time.time_ns() + shift_ns))
