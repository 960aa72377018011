"""Errors of the predictors that callers may want to tell from others. No torch here."""


class DeviceMemoryError(RuntimeError):
    """The device's memory does not suffice even for one object at a time with nothing cached."""
