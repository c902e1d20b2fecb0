"""Kinds of devices, one a module: `Options` (what the inventory may say) and `open_device(address, options, name)`."""
