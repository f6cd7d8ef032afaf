"""Where the bytes of sources are: adapters that read ranges."""
