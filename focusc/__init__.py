"""focusc."""
