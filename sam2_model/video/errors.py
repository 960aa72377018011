"""What goes wrong with a video, as an error or as a warning."""


class VideoDecodeError(ValueError):
    """A video or image that gives no pictures; names the file and the cause."""


class OpeningGivenUp(Exception):
    """Nobody waits any more for the file that was being opened."""


class VideoDecodeWarning(UserWarning):
    """A video of which only part decodes; names the file and what is missing."""
