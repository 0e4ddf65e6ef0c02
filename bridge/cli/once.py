"""A flag that may be given once."""

import argparse


class Once(argparse.Action):
    """Given twice, a flag is an error: of `--keys 'a:*' --keys 'b:*'` the first would be lost silently."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """See `argparse.Action`."""
        if hasattr(namespace, self.dest):
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, values)
