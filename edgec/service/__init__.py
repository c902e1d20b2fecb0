"""The agent as a service: what a device runs to answer inferences; everything but `pack` is for the device's Python."""
