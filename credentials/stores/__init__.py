"""Where accounts are kept: four stores that hold the same bytes and go by the same rules."""
