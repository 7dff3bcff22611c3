"""What ``arkrelay.toml`` may say about the way out: addresses, pace, routes, and what is demanded of peers."""

from dataclasses import dataclass

from arkrelay.model.attempt import RetryPolicy
from arkrelay.model.setting import Kind, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """``[delivery.timeouts]``: how long we wait for a peer, per stage (RFC 5321 §4.5.3.2)."""

    connect_s: float = setting("TCP connect.", Kind.DURATION, 30.0, low=0.001, key="connect")
    greeting_s: float = setting("Its banner.", Kind.DURATION, 60.0, low=0.001, key="greeting")
    command_s: float = setting("EHLO, STARTTLS, AUTH, MAIL, RCPT.", Kind.DURATION, 300.0, low=0.001, key="command")
    data_s: float = setting("The reply to DATA.", Kind.DURATION, 120.0, low=0.001, key="data")
    final_dot_s: float = setting(
        "The reply to the final dot; a short one makes duplicates.", Kind.DURATION, 600.0, low=0.001, key="final_dot"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """``[delivery]``: how mail leaves."""

    port: int = setting("The port of MX hosts.", Kind.INTEGER, 25, low=1, high=65535)
    concurrency: int = setting("Connections in all.", Kind.INTEGER, 200, low=1)
    max_attempts: int = setting("Attempts before a recipient fails for good.", Kind.INTEGER, 18, low=1)
    first_delay_s: float = setting(
        "Wait after the first soft failure.", Kind.DURATION, 300.0, low=0.001, key="first_delay"
    )
    factor: float = setting("Each later wait is this much longer.", Kind.NUMBER, 1.3, low=1)
    lifetime_s: float = setting(
        "A recipient is given up this long after acceptance.", Kind.DURATION, 172800.0, low=0.001, key="lifetime"
    )
    ip_family: str = setting(
        'Outgoing addresses; "auto" uses an IPv6 address only when its PTR record leads back to it.',
        Kind.CHOICE,
        "auto",
        choices=("auto", "4", "6"),
    )
    source_addresses: tuple[str, ...] = setting("Bind outgoing connections to these.", Kind.STRINGS, ())
    allow_destinations: tuple[str, ...] = setting(
        "Networks otherwise refused as MX: loopback, private, link-local, our own.", Kind.NETWORKS, ()
    )
    mode: str = setting(
        '"capture": everything ends in the local capture box and nothing leaves.',
        Kind.CHOICE,
        "deliver",
        choices=("deliver", "capture"),
    )
    canary_s: float = setting(
        'A site that refuses our address is tried once so often while a [[route]] with when = "sender-reputation"'
        " carries its mail.",
        Kind.DURATION,
        86400.0,
        low=0.001,
        key="canary",
    )
    uncertain: str = setting(
        "A recipient whose final dot was sent before a crash or a lost reply: tried again, or held for a person.",
        Kind.CHOICE,
        "retry",
        choices=("retry", "hold"),
    )
    connections_per_site: int = setting("Connections at once to one MX site.", Kind.INTEGER, 5, low=1)
    messages_per_connection: int = setting("Messages on one connection.", Kind.INTEGER, 100, low=1)
    messages_per_second: float = setting("Messages a second to one MX site; no smarthost has it.", Kind.NUMBER, 20)
    idle_connection_s: float = setting(
        "A kept connection without work is closed after this.", Kind.DURATION, 60.0, key="idle_connection"
    )
    transcripts: str = setting(
        "Whose SMTP conversations are kept, with the milliseconds of each step.",
        Kind.CHOICE,
        "all",
        choices=("all", "failures", "off"),
    )
    mta_sts: bool = setting("Obey the MTA-STS policies of recipient domains (RFC 8461).", Kind.BOOLEAN, True)
    dane: str = setting(
        'Obey TLSA records (RFC 7672): "auto" where DNSSEC proves them, or "off".',
        Kind.CHOICE,
        "auto",
        choices=("auto", "off"),
    )
    mta_sts_port: int = setting("The port of policy hosts.", Kind.INTEGER, 443, low=1, high=65535)
    timeouts: Timeouts = setting("Waits for a peer, per stage.", Kind.TABLE, Timeouts)

    def retry_policy(self) -> RetryPolicy:
        """Return the part that decides when to try again."""
        return RetryPolicy(self.max_attempts, self.first_delay_s, self.factor, self.lifetime_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One ``[[source]]``: an address of this machine from which mail leaves."""

    address: str = setting("The address; it is used as soon as this machine has it.", Kind.STRING)
    pool: str = setting("A tenant with this `pool` sends from here; empty: those without a pool do.", Kind.STRING, "")
    hostname: str = setting("EHLO name, where the PTR record of the address is not hostname.", Kind.HOST, "")
    warmup: bool = setting(
        "True: a new address; what it carries to each site grows from day to day, by [warmup].", Kind.BOOLEAN, False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """``[warmup]``: how new addresses become known to the sites that they send to."""

    daily: tuple[int, ...] = setting(
        "Messages from one address to one site on its first day with mail, its second, and so on; then it is warm.",
        Kind.INTEGERS,
        (50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600),
        low=1,
    )
    deferred_max: float = setting(
        "A day on which a larger share was put off by the site for the sake of our address is repeated.",
        Kind.NUMBER,
        0.1,
        high=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One ``[[route]]``: a smarthost instead of MX, for some recipients; the first match wins."""

    domain: str = setting('Recipient domain; "*.example.com" its subdomains, "*" any.', Kind.STRING)
    host: str = setting('"host:port" of the smarthost; may be private.', Kind.STRING)
    tls: str = setting(
        "Must the conversation be encrypted?",
        Kind.CHOICE,
        "optional",
        choices=("required", "optional", "none"),
    )
    username: str = setting("Name for AUTH; empty: no AUTH.", Kind.STRING, "")
    secret: str = setting("Password for AUTH, in any form of a secret.", Kind.SECRET, "")
    after: int = setting(
        "Only for recipients that were tried so often in vain; 0: from the first try.", Kind.INTEGER, 0
    )
    when: str = setting(
        'Only where a site refuses our address ("sender-reputation"), or for what our new addresses may not carry '
        'today ("warm-up").',
        Kind.CHOICE,
        "",
        choices=("", "sender-reputation", "warm-up"),
    )

    @property
    def always(self) -> bool:
        """Whether no cause has to be waited for."""
        return not (self.after or self.when)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsRule:
    """One ``[[tls_policy]]``: what we demand of a recipient domain, whatever it says itself; the first match wins."""

    domain: str = setting('Recipient domain; "*.example.com" its subdomains, "*" any.', Kind.STRING)
    require: str = setting(
        '"verified": TLS and a certificate that proves the host; "encrypted": TLS with any certificate.',
        Kind.CHOICE,
        choices=("verified", "encrypted"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsReports:
    """``[tls_reports]``: what we tell domains that ask for it about TLS towards them (RFC 8460)."""

    send: bool = setting("Send a report each day to every domain that asks for one.", Kind.BOOLEAN, False)
    organisation: str = setting("Who we are, in reports. Default: hostname.", Kind.STRING, "")
    contact: str = setting(
        "Address that reports come from and questions go to, of a sender domain of a tenant.", Kind.STRING, ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One ``[[provider]]``: what one provider takes from one address of ours."""

    name: str = setting("Its name, as `arkrelay lanes` shows it; a shipped one's replaces that.", Kind.STRING)
    mx: tuple[str, ...] = setting('Suffixes of its MX hosts, such as ".google.com".', Kind.STRINGS)
    connections: int = setting("Connections at once, over all of its hosts and domains.", Kind.INTEGER, 5)
    messages_per_connection: int = setting("Messages on one connection.", Kind.INTEGER, 100, low=1)
    messages_per_second: float = setting("Messages a second.", Kind.NUMBER, 20)
    idle_s: float = setting("A connection without work is closed after this.", Kind.DURATION, 60.0, key="idle")
    tls: str = setting(
        "Is mail for it never sent in clear text?", Kind.CHOICE, "optional", choices=("required", "optional")
    )
