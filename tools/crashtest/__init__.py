"""Break flashes on real connections, over and over, and look at the device each time."""
