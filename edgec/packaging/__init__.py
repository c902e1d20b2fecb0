"""From an artifact to what the device's own build takes: C sources, a compiled NPU model, metadata for an app."""
