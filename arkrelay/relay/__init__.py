"""The path of a message, one module a hop; read top to bottom to know what happens to mail.

``submit`` takes responsibility: ``drafts`` (header clean-up, admission, signature: ``sign``) and one write; when it
returns, the message is on disk. ``queue`` decides which destination is served now and by how many
connections (``claim`` and ``recall`` keep back what is for a suppressed address), and ``connection`` is one of them
at work; ``plan`` says where mail goes and what TLS is demanded
there, ``ways`` from which of our addresses (``sources``) or by which route, ``deliver`` connects and sends, and
reports what the peer said; ``policy.outcomes`` says what that means, and ``settle`` writes recipient, attempt (with
what was said: ``transcripts``), events and suppression in one transaction; by ``bursts`` a site that refuses
everybody suppresses nobody.

What comes back later, bounces and complaints, enters by ``inbound``; ``mailboxes`` says at which addresses.

``personal`` makes a message each recipient's own where links, a pixel or unsubscription are wanted; ``track`` and
``unsubscribe`` are what those lead to, and ``simulator`` plays recipients that do all of it.

Beside the path: ``operate`` (retry, hold, release, delete by a person), ``why`` (one plain sentence about anything
that waits or ended; ``standing``: and about domains, lists and tenants), ``domains`` (DNS of sender domains, again
and again), ``hookqueue`` (every event to every webhook that wants it: ``hooklog`` follows the log of events,
``hooktargets`` knows the endpoints, ``hooks`` makes one post), ``firsttime`` and ``leaks`` (what a stolen key may
do), ``sandbox`` (what may be sent without a domain), ``peertls`` (what TLS destinations demand; ``tlscounts`` and
``tlsreports``: how it came out, and who is told), ``upkeep`` (retention, held mail that expires, disk space),
``doctor`` (is all in order outside of this program? ``doctordns``, ``doctormail`` and ``doctorhost`` look, with what
is on the ``bench``), ``rotation`` (DKIM keys of domains that leave it to us, step by step).

What API and dashboard share: ``callers`` (whose key it is, and what it may do), ``settings`` (a change of files, in
force at once; ``hooksettings``: of webhooks), ``suppress`` (an entry made or removed by hand), ``reading`` (a message
taken apart for people), ``watch`` (the next event, for everybody who waits for it), ``following`` (the log as it
grows).

The state of the path lives in three places: the database, the configuration snapshot, and the schedule, which
is rebuilt from the database at start. Which attempts are past their final dot is kept in a memory-mapped
journal: a process that is killed leaves it behind at no cost per message, so a restart knows which recipients
are ``uncertain`` and which the peer had already taken.
"""
