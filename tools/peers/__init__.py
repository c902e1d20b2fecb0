"""Our emitted graphs against what other converters make of the same models."""
