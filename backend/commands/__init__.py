"""The commands of `sam2-label-studio`, one module a group.

Each has functions that add its parsers to argparse's subparsers; a parser's
`run` takes the options and the settings and gives the exit status. What is
slow to import (torch, the SDK) is imported when a command runs.
"""
