"""Tests of the plane's leaf modules, called from Python and compared with simple twins."""
