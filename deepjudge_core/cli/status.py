"""Exit statuses; what they say stands in :data:`deepjudge_core.cli.parser.EXIT_STATUS`."""

NO_COPY, COPY, USAGE, INCONCLUSIVE, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130
