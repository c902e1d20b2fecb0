"""What a device proves beyond the goldens: the user's application, a labelled set, the layer at fault."""
