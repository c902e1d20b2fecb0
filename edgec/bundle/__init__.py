"""What crosses to the device: pack a bundle, open it, verify it, run it."""
