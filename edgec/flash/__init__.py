"""Flash: bring a bundle onto a device so that, whatever happens on the way, the device runs a whole release."""
