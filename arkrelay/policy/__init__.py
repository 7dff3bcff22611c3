"""Decisions, and nothing else: no clock, no I/O, no log. What they depend on comes in as arguments.

``now`` is Unix seconds, and dice are drawn from a ``random.Random`` that the caller hands over, so that a test can
replay every decision. Each module answers one question of the path: may this be sent (``admit``, ``limits``), where
does it go (``route``), from which address of ours (``ways``, ``warmup``), when (``schedule``, ``retry``, ``pace``),
what did the peer's answer mean (``classify``; ``explain`` for people), which DNS records does a sender domain need
(``records``, ``zones``; ``zoneforms`` writes them, ``zonediff`` compares), what do receivers make of them (``spf``,
``dmarc``) and of this machine (``doctor``, ``doctorhost``, ``blocklists``: each a ``finding``), what TLS must a peer
show (``peertls``, ``mtasts``, ``dane``) and who is told (``tlsrpt``), which instants are meant by "last month"
somewhere (``periods``), what is tracked and who came by (``engage``), what a report means that comes back
(``reports``) and whom it suppresses (``suppress``, ``burst``), and what may be tried out (``sandbox``, ``simulate``).
Outcomes are values: a ``Failure`` where mail cannot go somewhere, a verdict where something was judged, a ``Refused``
for the submitter's door to raise.
"""
