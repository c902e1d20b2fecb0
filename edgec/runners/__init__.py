"""Run models in their own runtime, in a process of their own, here or on a device."""
