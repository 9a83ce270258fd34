"""Plans one run, holds it to its bounds, applies it in one transaction."""
