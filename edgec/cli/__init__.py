"""The command line: one command a file, no logic. Only typer is imported before a command runs."""
