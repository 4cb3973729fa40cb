"""The command line. Start at `entrance`; `parser` names every command and the function that does it."""
