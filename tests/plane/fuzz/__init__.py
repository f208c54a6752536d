"""libFuzzer targets of the plane, one C file each, and a short run of every one."""
