"""The subcommands, one module each. `bridge/cli/main.py` imports a module only when its subcommand is called."""
