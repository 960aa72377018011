"""`python -m sam2_model.evaluation DATA`: see `options`."""

from __future__ import annotations

import argparse

from sam2_model.evaluation import command, options


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sam2_model.evaluation", description=options.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_options(parser)
    return command.run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
