"""Edits of the configuration: what handlers ask for, how it can fail, what is shown of it."""
