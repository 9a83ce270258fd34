"""Reports how things stand: expiry, metrics, a relying party's view. Writes only its own notices."""
