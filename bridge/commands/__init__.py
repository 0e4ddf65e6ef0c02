"""The subcommands, one module each. `bridge/cli.py` imports a module only when its subcommand is called."""
