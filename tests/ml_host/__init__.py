"""The service inside label-studio-ml 1.0.9, in an environment of its own: `make ml-host`."""
