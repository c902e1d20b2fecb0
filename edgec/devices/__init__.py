"""Devices: whatever can execute a command and hold files, behind one `Transport`."""
