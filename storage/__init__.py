"""What outlives a restart: SQL behind one small class a need, on SQLite (by default) or PostgreSQL."""
