"""Data and nothing else: frozen dataclasses, enums and the errors that doors turn into words.

Everything above speaks in these types. A message flows as ``Submission`` → ``Message`` with its
``Recipient``s → ``Envelope`` → ``Attempt`` → ``Outcome`` → ``Event``; ``settings``, ``delivery`` and ``tenant`` hold
what the configuration files say, already typed and in seconds and bytes. Nothing here does I/O, reads a
clock or logs. The one parser, ``address``, lives here because every path must use the same one.
"""
