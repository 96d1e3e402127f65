"""The subcommands of `relevit`: each a typed function in a file of its own, that calls and prints; cli.py parses."""
