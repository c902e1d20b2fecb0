"""Hardware profiles as data: what a device and its runtimes accept, prefer and cost."""
