"""arkrelay: a mail-sending service for small teams, as one daemon on one machine."""

__version__ = "0.1.0"
