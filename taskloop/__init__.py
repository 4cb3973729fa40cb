"""taskloop."""
