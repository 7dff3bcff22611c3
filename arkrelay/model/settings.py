"""What ``arkrelay.toml`` may say: every setting with its type, default, unit and one sentence.

``config.schema`` walks these dataclasses and those of ``delivery`` to read the file, and a test compares them with
``etc/arkrelay.toml``, so a setting exists in one place. Durations are seconds and sizes bytes here; in TOML
they are strings with a unit ("5m", "14MB"). In a limit 0 means none. The evidence for each default is in
the comments of ``etc/arkrelay.toml``.
"""

from dataclasses import dataclass
from pathlib import Path

from arkrelay.model.delivery import Delivery, Provider, Route, Source, TlsReports, TlsRule, Warmup
from arkrelay.model.setting import Kind, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsExtra:
    """One ``[[tls.extra]]``: shown to clients that ask for one of its names (RFC 6066 §3)."""

    certificate: Path = setting("PEM file: the certificate and its chain; its names are those it is for.", Kind.PATH)
    private_key: Path = setting("PEM file: its private key, readable by the service only.", Kind.PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """``[tls]``: the certificate of every listener with TLS; all files are re-read when they change."""

    certificate: Path = setting("PEM file: the certificate and its chain.", Kind.PATH)
    private_key: Path = setting("PEM file: its private key, readable by the service only.", Kind.PATH)
    extra: tuple[TlsExtra, ...] = setting(
        "Certificates for further names, such as those of track domains.", Kind.TABLES, ()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """One ``[[listen]]``."""

    service: str = setting(
        "What answers here.", Kind.CHOICE, choices=("submission", "submissions", "bounces", "http")
    )
    address: str = setting('"host:port", "[v6]:port" or "unix:/path".', Kind.STRING)
    tls: str = setting(
        'SMTP: STARTTLS before AUTH is "required" (default), "optional" or "none"; the last two on loopback or a '
        'unix socket only. http: "required" serves https, default "none" on loopback.',
        Kind.CHOICE,
        "",
        choices=("", "required", "optional", "none"),
    )
    tenant: str = setting(
        "Clients here may skip AUTH and send as this tenant; loopback or a unix socket only.", Kind.STRING, ""
    )
    serve: tuple[str, ...] = setting(
        "http: what is answered beside /healthz and /readyz.",
        Kind.CHOICES,
        ("api", "dashboard", "metrics", "public"),
        choices=("api", "dashboard", "metrics", "public"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """``[public]``: names under which the world reaches us; empty names are derived from ``hostname``."""

    url: str = setting('Where "public" is reached from outside.', Kind.STRING, "")
    return_path_host: str = setting(
        "CNAME target of psrp.<domain>; its MX points here. Default rp.<hostname>.", Kind.HOST, ""
    )
    spf_host: str = setting("SPF include target. Default spf.<hostname>.", Kind.HOST, "")
    track_host: str = setting("CNAME target of track domains. Default track.<hostname>.", Kind.HOST, "")
    complaint_address: bool = setting(
        "Say in each message where complaints about it go (RFC 9477), as fbl@psrp.<sender domain>.",
        Kind.BOOLEAN,
        False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """``[smtp]``: what the SMTP doors accept."""

    max_message_bytes: int = setting(
        "Largest message; announced by SIZE, enforced while reading.",
        Kind.SIZE,
        14_000_000,
        low=1,
        key="max_message",
    )
    max_recipients: int = setting("Recipients in one transaction; more get 452.", Kind.INTEGER, 1000, low=1)
    tag_headers: tuple[str, ...] = setting(
        "Header fields that carry the tag; removed before signing.", Kind.STRINGS, ("X-Ark-Tag", "X-PM-Tag")
    )
    metadata_headers: tuple[str, ...] = setting(
        "Prefixes of header fields that carry one metadata entry each; removed before signing.",
        Kind.STRINGS,
        ("X-Ark-Metadata-", "X-PM-Metadata-"),
    )
    errors: str = setting(
        "A message that policy refuses: 5xx at once, or 250 and a failed message with the reason.",
        Kind.CHOICE,
        "reject",
        choices=("reject", "accept-and-log"),
    )
    bare_newline: str = setting(
        "Bare LF in a message: made CRLF, or refused. A bare CR is always refused.",
        Kind.CHOICE,
        "normalize",
        choices=("normalize", "reject"),
    )
    idle_timeout_s: float = setting(
        "Longest wait for a client's next command.", Kind.DURATION, 300.0, low=0.001, key="idle_timeout"
    )
    auth_mechanisms: tuple[str, ...] = setting(
        "SASL mechanisms offered, only under TLS, on loopback or a unix socket.",
        Kind.CHOICES,
        ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"),
        choices=("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "DIGEST-MD5"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """``[dns]``."""

    nameservers: tuple[str, ...] = setting('"ip" or "ip:port"; default: the system\'s.', Kind.STRINGS, ())
    trust_ad: bool = setting(
        "Believe what these nameservers say of DNSSEC though they are not on loopback.", Kind.BOOLEAN, False
    )
    timeout_s: float = setting(
        "Longest wait for one round over the nameservers; a look-up makes two.",
        Kind.DURATION,
        5.0,
        low=0.001,
        key="timeout",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """``[doctor]``: the look at what mail depends on outside of this program."""

    every_s: float = setting(
        "How often the daemon looks by itself; 0: only when asked.", Kind.DURATION, 3600.0, key="every"
    )
    probe_host: str = setting(
        '"host" or "host:25" of a mail server of yours elsewhere, to which connections are tried; empty: none is.',
        Kind.STRING,
        "",
    )
    blocklists: tuple[str, ...] = setting(
        "DNS blocklists that are asked about our addresses.",
        Kind.HOSTS,
        ("zen.spamhaus.org", "bl.spamcop.net", "psbl.surriel.com"),
    )
    domain_blocklists: tuple[str, ...] = setting(
        "DNS blocklists that are asked about sender domains.", Kind.HOSTS, ("dbl.spamhaus.org",)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """``[suppression]``."""

    on: str = setting(
        'What suppresses: hard failures that blame the recipient, "any-hardfail" (as Ark), or nothing.',
        Kind.CHOICE,
        "recipient",
        choices=("recipient", "any-hardfail", "off"),
    )
    bounces: bool = setting(
        "Does a report that comes back after acceptance suppress like a failure of its class?", Kind.BOOLEAN, False
    )
    mailbox_full: int = setting(
        "An address joins the list when so many messages found its mailbox full; 0: never.", Kind.INTEGER, 3
    )
    mailbox_full_within_s: float = setting(
        "The time within which they are counted.", Kind.DURATION, 604_800.0, key="mailbox_full_within"
    )
    keep_s: float = setting(
        "What failures have put on a list lapses after this; 0: never. All other entries stay.",
        Kind.DURATION,
        0.0,
        key="keep",
    )
    burst_percent: float = setting(
        "A site that calls more of a tenant's recipients unknown within an hour is not believed; 0: it always is.",
        Kind.NUMBER,
        20,
        high=100,
    )
    burst_recipients: int = setting("Of fewer recipients within an hour nothing is concluded.", Kind.INTEGER, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """``[sandbox]``: sending without a domain of one's own, and recipients that are played."""

    domain: str = setting(
        "Every tenant may send from addresses at this domain, unverified; empty: none may.", Kind.HOST, ""
    )
    members: tuple[str, ...] = setting("The addresses that such mail may go to.", Kind.STRINGS, ())
    daily: int = setting("Such emails of a tenant per day (UTC).", Kind.INTEGER, 10)
    simulator: str = setting(
        "Mail to this domain never leaves: ok@, hardfail@, click@ and others play their part; empty: off.",
        Kind.HOST,
        "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """``[dsn]``: notices to senders (RFC 3461, RFC 3464), sent to the return path that they gave."""

    failures: str = setting(
        'Notices of failure: when NOTIFY asks for them, also when it is absent ("always"), or never.',
        Kind.CHOICE,
        "asked",
        choices=("asked", "always", "never"),
    )
    delay_after_s: float = setting(
        "A sender who asked for it is told of mail that still waits after this; 0: never.",
        Kind.DURATION,
        14_400.0,
        key="delay_after",
    )
    original: str = setting(
        "What comes back with a failure: what RET asks for (above 64 KB the header only), or always the header.",
        Kind.CHOICE,
        "asked",
        choices=("asked", "headers"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """``[retention]``: how long what happened is kept; never applied to undelivered mail."""

    content_s: float = setting("Bodies.", Kind.DURATION, 2_592_000.0, key="content")
    messages_s: float = setting("Messages, recipients and attempts.", Kind.DURATION, 5_184_000.0, key="messages")
    events_s: float = setting("The event log.", Kind.DURATION, 5_184_000.0, key="events")
    transcripts_s: float = setting(
        "SMTP conversations of attempts; 0: none is kept.", Kind.DURATION, 1_209_600.0, key="transcripts"
    )
    request_log_s: float = setting(
        "Requests and webhook deliveries; 0: requests are not recorded.",
        Kind.DURATION,
        1_209_600.0,
        key="request_log",
    )
    held_s: float = setting("Held mail fails after this.", Kind.DURATION, 604_800.0, key="held")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """``[webhooks]``."""

    timeout_s: float = setting("Longest wait for a receiver.", Kind.DURATION, 5.0, low=0.001, key="timeout")
    retry_s: tuple[float, ...] = setting(
        "Waits between attempts; after the last the event is parked.",
        Kind.DURATIONS,
        (60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 43200.0, 86400.0, 86400.0),
        key="retry",
    )
    body: str = setting("Form of the JSON body.", Kind.CHOICE, "wrapped", choices=("wrapped", "bare", "merged"))
    concurrency: int = setting("Posts at once in all.", Kind.INTEGER, 100, low=1)
    concurrency_per_webhook: int = setting("Posts at once to one webhook that answers well.", Kind.INTEGER, 10, low=1)
    max_per_tenant: int = setting(
        "Webhooks that a tenant may have by REST; files may name more.", Kind.INTEGER, 50, low=1
    )
    allow_http: bool = setting("Allow plain http targets.", Kind.BOOLEAN, False)
    allow_destinations: tuple[str, ...] = setting("Networks otherwise refused as targets.", Kind.NETWORKS, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``[limits]``: what one client may take."""

    api_requests_per_s: float = setting("Requests per key and second.", Kind.NUMBER, 10)
    rate_shared_with_smtp: bool = setting(
        "A tenant's requests and its SMTP messages count together, for the tenant instead of for each key.",
        Kind.BOOLEAN,
        False,
    )
    batch_max: int = setting("Emails in one batch request.", Kind.INTEGER, 100, low=1, high=500)
    connections_per_address: int = setting("SMTP connections at once per client address (v6: /64).", Kind.INTEGER, 30)
    connections_per_minute: int = setting("New SMTP connections per client address and minute.", Kind.INTEGER, 300)
    auth_failures_per_minute: int = setting("Failed AUTH per client address and minute.", Kind.INTEGER, 10)
    auth_failures_per_day: int = setting("Failed AUTH per client address and day.", Kind.INTEGER, 50)
    tarpit_s: float = setting("Pause after a failed AUTH.", Kind.DURATION, 1.0, key="tarpit")
    trusted_addresses: tuple[str, ...] = setting(
        "Not counted by the four limits above: local apps, a proxy.",
        Kind.NETWORKS,
        ("127.0.0.0/8", "::1/128"),
    )
    min_free_disk_bytes: int = setting(
        "Below it nothing is accepted: SMTP 452, REST 507.", Kind.SIZE, 512_000_000, key="min_free_disk"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """``[log]``."""

    format: str = setting(
        '"auto": console on a terminal, journald\'s line form under systemd, JSON lines elsewhere.',
        Kind.CHOICE,
        "auto",
        choices=("auto", "console", "json"),
    )
    level: str = setting(
        "The least level that is written.", Kind.CHOICE, "info", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole of ``arkrelay.toml``."""

    hostname: str = setting("Banner, EHLO, Received, Message-ID; its PTR should match.", Kind.HOST)
    state_dir: Path = setting("Database, keys, large bodies.", Kind.PATH, Path("/var/lib/arkrelay"))
    tenants_dir: Path = setting("Tenant files, relative to this file.", Kind.PATH, Path("tenants"))
    default_tenant: str = setting("For organisation keys that name no tenant.", Kind.STRING, "")
    tls: Tls | None = setting("Certificate of the listeners.", Kind.TABLE, None)
    listen: tuple[Listen, ...] = setting(
        "Listeners. With none: submission on 127.0.0.1:2525 (tls optional) and http on 127.0.0.1:8025.",
        Kind.TABLES,
        (),
    )
    public: Public = setting("Names for the world.", Kind.TABLE, Public)
    smtp: Smtp = setting("The SMTP doors.", Kind.TABLE, Smtp)
    delivery: Delivery = setting("How mail leaves.", Kind.TABLE, Delivery)
    source: tuple[Source, ...] = setting("Addresses from which mail leaves.", Kind.TABLES, ())
    warmup: Warmup = setting("How new addresses become known.", Kind.TABLE, Warmup)
    route: tuple[Route, ...] = setting("Smarthosts instead of MX.", Kind.TABLES, ())
    tls_policy: tuple[TlsRule, ...] = setting("TLS demanded of recipient domains.", Kind.TABLES, ())
    tls_reports: TlsReports = setting("Reports about TLS to recipient domains.", Kind.TABLE, TlsReports)
    provider: tuple[Provider, ...] = setting("Limits of providers beside the shipped ones.", Kind.TABLES, ())
    dns: Dns = setting("The resolver.", Kind.TABLE, Dns)
    doctor: Doctor = setting("The look at DNS and this machine.", Kind.TABLE, Doctor)
    suppression: Suppression = setting("Addresses that may not be mailed.", Kind.TABLE, Suppression)
    dsn: Dsn = setting("Notices to senders.", Kind.TABLE, Dsn)
    retention: Retention = setting("How long things are kept.", Kind.TABLE, Retention)
    webhooks: Webhooks = setting("Webhook delivery.", Kind.TABLE, Webhooks)
    sandbox: Sandbox = setting("Trying things out.", Kind.TABLE, Sandbox)
    limits: Limits = setting("What one client may take.", Kind.TABLE, Limits)
    log: Log = setting("The log on standard error.", Kind.TABLE, Log)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every address from which mail leaves; empty: the system chooses."""
        listed = tuple(Source(address=address) for address in self.delivery.source_addresses)
        return (*listed, *self.source)

    @property
    def return_path_host(self) -> str:
        return self.public.return_path_host or f"rp.{self.hostname}"

    @property
    def spf_host(self) -> str:
        return self.public.spf_host or f"spf.{self.hostname}"

    @property
    def track_host(self) -> str:
        return self.public.track_host or f"track.{self.hostname}"
