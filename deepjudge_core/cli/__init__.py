"""The command line: ``deepjudge``."""
