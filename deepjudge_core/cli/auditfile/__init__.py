"""The file of an audit, AUDIT.toml, read with line numbers and all mistakes at once."""
