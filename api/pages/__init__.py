"""Pages for people to read: the reference and the registers."""
