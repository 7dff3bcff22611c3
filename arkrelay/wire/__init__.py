"""The network edges: a resolver, one SMTP conversation, TLS contexts, one POST to a URL that is not ours,
one GET of a policy.

What a peer does to us comes back as data, never as an exception: a ``Reply`` when it answered, a ``Failure``
when it did not, with the ``FailureKind`` that ``policy.classify`` decides by. A kind that ends a recipient's
life is only given where the peer really said so; whatever surprises us is a temporary kind.

DNS is three files. ``dnsquery`` puts one question to the nameservers (rounds, EDNS, TCP) and says what they
answered; ``dnscache`` keeps answers for their TTL and lets one look-up serve all who ask at the same time;
``dns`` turns answers into MX hosts, addresses and texts. dnspython reads and writes the messages. Its own
resolver is not used, because it reports SERVFAIL, REFUSED, a CNAME loop and a cut-off TCP connection by the
same exception, opens no EDNS, and has no cache that counts look-ups.

``probe`` says a few SMTP commands to a host for who only wants to hear the answers.

The SMTP client is our own from the first octet: set-up, STARTTLS and AUTH are some 270 lines on the same
connection, reply parser and timer as the transactions. aiosmtplib would bring a second reader and a second
timeout scheme, raises the same exceptions before and after the final dot, takes only 250 as success and parses
addresses again; it serves ``arkrelay send`` and the tests, and not delivery.
"""
