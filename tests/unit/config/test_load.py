"""Broken files: which file, which key, and why; and all of it at once."""

import os
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers.configuration import Folder

from arkrelay.config.errors import ConfigErrors
from arkrelay.config.load import load, load_settings, parse_toml
from arkrelay.model.settings import Listen

MAIN = [
    (
        "max_recipents = 5",
        (
            "max_recipents: unknown key; known here: hostname, state_dir, tenants_dir, default_tenant, tls, "
            "listen, public, smtp, delivery, source, warmup, route, tls_policy, tls_reports, provider, dns, doctor, "
            "suppression, dsn, retention, webhooks, sandbox, limits, log"
        ),
    ),
    ("[smtp]\nmax_recipents = 5", 'smtp.max_recipents: unknown key, did you mean "max_recipients"?'),
    ("[smpt]", 'smpt: unknown key, did you mean "smtp"?'),
    ('[smtp]\nmax_recipients = "5"', 'smtp.max_recipients: expected an integer, got string "5"'),
    ("[smtp]\nmax_recipients = true", "smtp.max_recipients: expected an integer, got boolean true"),
    ("[smtp]\nmax_recipients = 0", "smtp.max_recipients: must be at least 1"),
    ("[smtp]\nmax_message = 1.5", 'smtp.max_message: expected a size such as "14MB", got float 1.5'),
    ("[smtp]\nmax_message = 0", "smtp.max_message: must be at least 1B"),
    (
        '[smtp]\nmax_message = "14 megs"',
        (
            'smtp.max_message: expected a size such as "14MB" (units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB), got '
            'string "14 megs"'
        ),
    ),
    ("[smtp]\nidle_timeout = 5", 'smtp.idle_timeout: expected a duration such as "30m", got integer 5'),
    ("[smtp]\nidle_timeout = 0", "smtp.idle_timeout: must be at least 1ms"),
    ("[smtp]\nidle_timeout = false", 'smtp.idle_timeout: expected a duration such as "30m", got boolean false'),
    ('[smtp]\nerrors = "Reject"', 'smtp.errors: expected one of "reject", "accept-and-log", got string "Reject"'),
    (
        '[smtp]\nauth_mechanisms = ["PLAIN", "X"]',
        (
            'smtp.auth_mechanisms[1]: expected one of "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", '
            '"DIGEST-MD5", got '
            'string "X"'
        ),
    ),
    ('[smtp]\nauth_mechanisms = "PLAIN"', 'smtp.auth_mechanisms: expected a list, got string "PLAIN"'),
    (
        '[smtp]\ntag_headers = ["X-Tag:"]',
        "smtp.tag_headers[0]: expected the name of a header field, without its colon",
    ),
    ("smtp = 5", "smtp: expected a table, got integer 5"),
    ("listen = {}", "listen: expected a list of tables, [[…]], got a table"),
    ("listen = [5]", "listen[0]: expected a table, got integer 5"),
    ("[[listen]]\nservice = 'http'", "listen[0].address: is required"),
    (
        "[[listen]]\nservice = 'smtp'\naddress = '127.0.0.1:25'",
        'listen[0].service: expected one of "submission", "submissions", "bounces", "http", got string "smtp"',
    ),
    (
        "[[listen]]\nservice = 'http'\naddress = '127.0.0.1'",
        'listen[0].address: the port is missing: expected "host:port"',
    ),
    (
        "[[listen]]\nservice = 'http'\naddress = '127.0.0.1:1'\n" * 2,
        "listen[1].address: listen[0] already listens there",
    ),
    (
        "[[listen]]\nservice = 'submission'\naddress = '0.0.0.0:587'",
        "listen[0].tls: needs a certificate, and there is no [tls]",
    ),
    (
        "[[listen]]\nservice = 'submissions'\naddress = '127.0.0.1:465'",
        "listen[0].tls: needs a certificate, and there is no [tls]",
    ),
    (
        "[[listen]]\nservice = 'http'\naddress = '0.0.0.0:443'",
        "listen[0].tls: needs a certificate, and there is no [tls]",
    ),
    (
        "[[listen]]\nservice = 'submission'\naddress = '0.0.0.0:587'\ntls = 'optional'",
        'listen[0].tls: "optional" would send passwords in clear: only on a loopback address or a unix socket',
    ),
    (
        "[[listen]]\nservice = 'submission'\naddress = '10.0.0.1:587'\ntls = 'none'",
        'listen[0].tls: "none" would send passwords in clear: only on a loopback address or a unix socket',
    ),
    (
        "[[listen]]\nservice = 'bounces'\naddress = '0.0.0.0:25'\ntls = 'required'",
        "listen[0].tls: other mail servers need not know TLS (RFC 3207 §4)",
    ),
    (
        "[[listen]]\nservice = 'http'\naddress = '127.0.0.1:80'\ntls = 'optional'",
        'listen[0].tls: http is "required" or "none"',
    ),
    (
        "[[listen]]\nservice = 'submission'\naddress = '127.0.0.1:25'\ntls = 'none'\ntenant = 'nobody'",
        'listen[0].tenant: there is no tenant "nobody"',
    ),
    (
        "[[listen]]\nservice = 'http'\naddress = '127.0.0.1:25'\ntenant = 'acme'",
        "listen[0].tenant: has no meaning for http",
    ),
    (
        "[[listen]]\nservice = 'bounces'\naddress = '127.0.0.1:25'\nserve = ['api']",
        "listen[0].serve: is for http listeners only",
    ),
    ("default_tenant = 'acme'", 'default_tenant: there is no tenant "acme"'),
    ("tenants_dir = ''", "tenants_dir: expected a path, got an empty string"),
    ("[public]\nurl = 'http://relay.example.com'", "public.url: expected https://host"),
    ("[public]\nurl = 'https://'", "public.url: expected https://host"),
    ("[public]\nurl = 'https://[::1'", "public.url: is not a URL"),
    ("[public]\nurl = 'https://relay.example.com/?a'", "public.url: expected https://host and at most a path"),
    (
        "[public]\nspf_host = 'spf..example.com'",
        'public.spf_host: the domain has an empty label: string "spf..example.com"',
    ),
    ("[delivery]\nsource_addresses = ['eth0']", 'delivery.source_addresses[0]: expected an IP address, got "eth0"'),
    ("[[source]]\naddress = 'eth0'", 'source[0].address: expected an IP address, got "eth0"'),
    ("[[source]]\naddress = '2001:DB8::1'", 'source[0].address: write it as "2001:db8::1"'),
    (
        "[delivery]\nsource_addresses = ['192.0.2.1']\n[[source]]\naddress = '192.0.2.1'",
        "source[0].address: is the same as delivery.source_addresses[0]",
    ),
    (
        "[[source]]\naddress = '192.0.2.1'\npool = 'Bulk mail'",
        "source[0].pool: expected 1 to 40 small letters, digits, dashes or underscores",
    ),
    ("[warmup]\ndaily = [50, 0]", "warmup.daily[1]: must be at least 1"),
    ("[warmup]\ndaily = 50", "warmup.daily: expected a list, got integer 50"),
    ("[warmup]\ndeferred_max = 2", "warmup.deferred_max: must be at most 1"),
    (
        "[[route]]\ndomain = '*'\nhost = 'smart:25'\nafter = 3\nwhen = 'warm-up'",
        "route[0].after: after and when are two causes: write two routes",
    ),
    (
        "[[route]]\ndomain = '*'\nhost = 'smart:25'\nwhen = 'down'",
        'route[0].when: expected one of "sender-reputation", "warm-up", got string "down"',
    ),
    ("[delivery]\nfactor = 0.5", "delivery.factor: must be at least 1"),
    ("[delivery]\nfactor = nan", "delivery.factor: must be at least 1"),
    ("[delivery]\nfactor = '1.3'", 'delivery.factor: expected a number, got string "1.3"'),
    ("[delivery]\nport = 65536", "delivery.port: must be at most 65535"),
    ("[delivery.timeouts]\nconnect = '0s'", "delivery.timeouts.connect: must be at least 1ms"),
    ("[delivery.timeouts]\nconect = '5s'", 'delivery.timeouts.conect: unknown key, did you mean "connect"?'),
    (
        "[delivery]\nallow_destinations = ['10.1.2.3/8']",
        "delivery.allow_destinations[0]: 10.1.2.3/8 has bits set beyond its prefix, did you mean 10.0.0.0/8?",
    ),
    (
        "[delivery]\nallow_destinations = ['lan']",
        'delivery.allow_destinations[0]: expected a network such as "10.0.0.0/8", got string "lan"',
    ),
    ("[delivery]\nallow_destinations = [7]", "delivery.allow_destinations[0]: expected a string, got integer 7"),
    (
        "[dns]\nnameservers = ['1.1.1.1:dns']",
        'dns.nameservers[0]: expected "ip", "ip:port" or "[v6]:port", got "1.1.1.1:dns"',
    ),
    (
        "[dns]\nnameservers = ['resolver.example']",
        'dns.nameservers[0]: expected "ip", "ip:port" or "[v6]:port", got "resolver.example"',
    ),
    ("[webhooks]\nretry = ['1m', 5]", 'webhooks.retry[1]: expected a duration such as "30m", got integer 5'),
    ("[webhooks]\nallow_http = 1", "webhooks.allow_http: expected true or false, got integer 1"),
    ("[[route]]\ndomain = '*'\nhost = 'smart'", 'route[0].host: the port is missing: expected "host:port"'),
    ("[[tls_policy]]\ndomain = 'a..b'\nrequire = 'verified'", "tls_policy[0].domain: the domain has an empty label"),
    ("[[tls_policy]]\ndomain = 'a.test'", "tls_policy[0].require: is required"),
    (
        "[public]\nreturn_path_host = 'rp.relay.test'\n[sandbox]\nsimulator = 'rp.relay.test'",
        "sandbox.simulator: is the host that bounces come to: take another",
    ),
    ("[tls_reports]\nsend = true", "tls_reports.contact: is needed to send reports"),
    (
        "[tls_reports]\ncontact = 'tls@nobody.test'",
        "tls_reports.contact: nobody.test is not a sender domain of any tenant",
    ),
    ("[[route]]\ndomain = 'a..b'\nhost = 'smart:25'", "route[0].domain: the domain has an empty label"),
    (
        "[[route]]\ndomain = 'a.b'\nhost = 'smart:25'\n[[route]]\ndomain = '*'\nhost = 'Smart:25'\ntls = 'required'",
        "route[1].host: Smart:25 has other tls, username or secret further up",
    ),
    (
        "[[route]]\ndomain = '*'\nhost = 'smart:25'\nusername = 'x'",
        "route[0].secret: username and secret go together",
    ),
    (
        "[[route]]\ndomain = '*'\nhost = 'smart:25'\nsecret = 'x'",
        "route[0].username: username and secret go together",
    ),
    (
        "[[route]]\ndomain = '*'\nhost = 'smart:25'\nusername = 'x'\nsecret = 'sha256:" + "0" * 64 + "'",
        "route[0].secret: sha256: cannot be used to log in elsewhere",
    ),
    (
        "[[route]]\ndomain = '*'\nhost = 'smart:25'\nusername = 'x'\nsecret = 5",
        "route[0].secret: expected a string, got integer",
    ),
    (
        "[tls]\ncertificate = '/nowhere/cert.pem'\nprivate_key = '/nowhere/key.pem'",
        "tls.certificate: /nowhere/cert.pem cannot be read: No such file or directory",
    ),
    (
        '[log]\nlevel = "info\\u001b"',
        'log.level: expected one of "debug", "info", "warning", "error", got string "info?"',
    ),
    ('default_tenant = "a\\nb"', "default_tenant: holds a control character or a line break"),
    ("date = 2026-01-01", "date: unknown key; known here: "),
    ("default_tenant = 2026-01-01", "default_tenant: expected a string, got a date"),
]


@pytest.mark.parametrize(("text", "problem"), MAIN, ids=[problem.split(":")[0] for _, problem in MAIN])
def test_a_broken_setting_is_named_with_file_key_and_reason(folder: Folder, text: str, problem: str) -> None:
    folder.main(text)
    assert len(folder.problems()) == 1
    assert folder.problems()[0].startswith(f"arkrelay.toml: {problem}")


@pytest.mark.parametrize("simulator", ["sender.test", "psrp.sender.test"])
def test_the_simulator_is_no_domain_of_real_mail(folder: Folder, simulator: str) -> None:
    folder.main(f"[sandbox]\nsimulator = '{simulator}'")
    folder.tenant("acme", "[[domains]]\nname = 'sender.test'")
    assert folder.problems() == [
        "arkrelay.toml: sandbox.simulator: is a domain of tenant acme: its mail would never leave"
    ]


TENANT = [
    ("status = 'on'", 'status: expected one of "active", "suspended", "archived", got string "on"'),
    ("[limits]\nhourly = -1", "limits.hourly: must be at least 0"),
    ("[limits]\nhuorly = 1", 'limits.huorly: unknown key, did you mean "hourly"?'),
    (
        "[[credentials]]\nname = 'a b'\nsecret = 'x'",
        "credentials[0].name: expected 1 to 50 letters, digits, dashes or underscores",
    ),
    ("[[credentials]]\nname = 'a'", "credentials[0].secret: is required"),
    ("[[credentials]]\nname = 'a'\nsecret = ''", "credentials[0].secret: is empty"),
    ("[[credentials]]\nname = 'a'\nsecret = 7", "credentials[0].secret: expected a string, got integer"),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'sha256:abc'",
        "credentials[0].secret: expected 64 hexadecimal digits after sha256:",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'sealed:v1:abcd'",
        "credentials[0].secret: is sealed, but this machine has no host key",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'file:secret'",
        "credentials[0].secret: expected an absolute path after file:",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'file:/nowhere'",
        "credentials[0].secret: /nowhere cannot be read: No such file or directory",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'credential:../x'",
        "credentials[0].secret: expected the name of a systemd credential after credential:",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'x'\n[[credentials]]\nname = 'a'\nsecret = 'y'",
        "credentials[1].name: is the same as that of credentials[0]",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'x'\n[[credentials]]\nname = 'b'\nsecret = 'x'",
        'credentials[1].secret: is the same as that of credential "a" of tenant acme',
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'x'\nid = 7\n[[credentials]]\nname = 'b'\nsecret = 'y'\nid = 7",
        "credentials[1].id: is the same as that of credentials[0]",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'x'\ndomains = ['Other.Example']",
        "credentials[0].domains[0]: other.example is not a domain of this tenant",
    ),
    (
        "[[credentials]]\nname = 'a'\nsecret = 'x'\npermissions = ['read']",
        'credentials[0].permissions[0]: expected "send", got string "read"',
    ),
    (
        "[[domains]]\nname = 'not a domain'",
        'domains[0].name: a label of the domain is not letters, digits and inner hyphens: string "not a domain"',
    ),
    (
        "[[domains]]\nname = 'a.example'\n[[domains]]\nname = 'A.example'",
        "domains[1].name: a.example is already a domain of this tenant",
    ),
    (
        "[[domains]]\nname = 'a.example'\n[[domains.dkim]]\nselector = 's'\nprivate_key = '/nowhere'",
        "domains[0].dkim[0].private_key: /nowhere cannot be read: No such file or directory",
    ),
    (
        "[[webhooks]]\nname = 'w'\nurl = 'http://x.example/'",
        "webhooks[0].url: plain http needs allow_http in [webhooks] of arkrelay.toml",
    ),
    ("[[webhooks]]\nname = 'w'\nurl = 'ftp://x.example/'", "webhooks[0].url: expected https://host"),
    ("[[webhooks]]\nname = 'w'\nurl = 'https:///x'", "webhooks[0].url: expected https://host"),
    ("[[webhooks]]\nname = 'w'\nurl = 'https://x.example:port/'", "webhooks[0].url: is not a URL"),
    (
        "[[webhooks]]\nname = 'w'\nurl = 'https://x.example/'\nevents = ['Sent']",
        'webhooks[0].events[0]: expected one of "MessageSent", ',
    ),
    (
        "[[track_domains]]\nname = 'track'\ndomain = 'a.example'",
        "track_domains[0].domain: a.example is not a domain of this tenant",
    ),
    (
        "[[domains]]\nname = 'a.example'\n[[track_domains]]\nname = 'Track'\ndomain = 'a.example'",
        "track_domains[0].name: expected one label: lower-case letters, digits and inner hyphens",
    ),
    (
        (
            "[[domains]]\nname = 'a.example'\n[[track_domains]]\nname = 't'\ndomain = 'a.example'\n"
            "[[track_domains]]\nname = 'u'\ndomain = 'a.example'"
        ),
        "track_domains[1].domain: a.example has a track domain already",
    ),
    ("[metadata]\nlist = [1]", "metadata.list: expected a string, a number, a boolean or null"),
    ("[metadata]\nnumber = inf", "metadata.number: is not a number that JSON can write"),
    (f"[metadata]\nlong = '{'x' * 501}'", "metadata.long: is longer than 500 characters"),
    (f"[metadata]\n{'k' * 41} = 1", f"metadata.{'k' * 41}: the key is longer than 40 characters"),
    ("[metadata]\n" + "\n".join(f"k{i} = 1" for i in range(51)), "metadata: has more than 50 keys"),
    ("[metadata]\n" + "\n".join(f"k{i} = '{'x' * 490}'" for i in range(20)), "metadata: is larger than 8192 bytes"),
]


@pytest.mark.parametrize(("text", "problem"), TENANT, ids=[problem.split(":")[0] for _, problem in TENANT])
def test_a_broken_tenant_file_is_named_with_key_and_reason(folder: Folder, text: str, problem: str) -> None:
    folder.tenant("acme", text)
    assert len(folder.problems()) == 1
    assert folder.problems()[0].startswith(f"tenants/acme.toml: {problem}")


def test_a_tenant_whose_mail_could_leave_from_no_address_is_named(folder: Folder) -> None:
    folder.tenant("acme", 'pool = "bulk"')
    folder.tenant("other")
    assert folder.problems() == [
        'tenants/acme.toml: pool: no [[source]] of arkrelay.toml is in the pool "bulk"; pools there: none'
    ]
    folder.main("[[source]]\naddress = '192.0.2.1'\npool = 'bulk'")
    assert folder.problems() == [
        "tenants/other.toml: pool: is needed: every [[source]] of arkrelay.toml is in a pool, and other names none"
    ]
    folder.main("[delivery]\nsource_addresses = ['192.0.2.2']\n[[source]]\naddress = '192.0.2.1'\npool = 'bulk'")
    assert [source.address for source in folder.load().settings.sources] == ["192.0.2.2", "192.0.2.1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a = ", "is not TOML: Invalid value (at end of document)"),
        (b"a = 1\nb = = 2\n", "is not TOML: Invalid value (at line 2, column 5)"),
        (b"a = 1\n\na = 2\n", "is not TOML: Cannot overwrite a value (at line 3, column 6)"),
        (b"a = 1\nb = '\xff'\n", "is not UTF-8 (at line 2)"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a = 2026-02-31\n", "holds a value that cannot be read: "),
        (b"a = " + b"9" * 5000, "holds a value that cannot be read: "),
    ],
)
def test_what_is_not_toml_has_its_line(folder: Folder, content: bytes, reason: str) -> None:
    folder.write("tenants/acme.toml", content)
    (problem,) = folder.problems()
    assert problem.startswith(f"tenants/acme.toml: {reason}") or (
        reason.startswith("holds") and problem.startswith("tenants/acme.toml: is not TOML: ")
    )


def test_a_byte_order_mark_does_no_harm(folder: Folder) -> None:
    folder.write("tenants/acme.toml", "\ufeffname = 'Acme'".encode())
    assert folder.load().tenants["acme"].name == "Acme"


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="[]{}=\"'\n.#ab1-:T \\", max_size=60).map(str.encode)))
def test_rubbish_is_tables_or_a_value_error(content: bytes) -> None:
    try:
        assert isinstance(parse_toml(content), dict)
    except ValueError as exc:
        reason = str(exc)
        assert reason


VALUES = st.recursive(
    st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=20), st.dates(), st.just("10m")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "secret", "url", "x"]), inner)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "name",
        "status",
        "metadata",
        "limits",
        "credentials",
        "domains",
        "unsubscribe",
        "webhooks",
        "track_domains",
        "?",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES))
def test_a_file_of_any_values_loads_or_is_refused(folder: Folder, table: dict[str, object]) -> None:
    try:
        content = tomli_w.dumps(table).encode()
    except UnicodeEncodeError:
        return
    folder.write("tenants/acme.toml", content)
    try:
        load(folder.path)
    except ConfigErrors as exc:
        problems = exc.problems
        assert all(problem.reason and "\n" not in str(problem) for problem in problems)
        assert all(Path(problem.file).name == "acme.toml" for problem in problems)


def test_every_problem_of_every_file_is_reported(folder: Folder) -> None:
    folder.write("arkrelay.toml", 'state_dir = "state"\nnope = 1\n[smtp]\nmax_recipients = "x"\nerrors = "y"\n')
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\n")
    folder.tenant("acme", "[[domains]]\nname = 'a.example'\n[[domains]]\ntrusted = 'yes'\n")
    folder.write("tenants/beta.toml", "not toml")
    folder.write("tenants/gamma.toml", "[[domains]]\nname = 'a.example'\n")
    assert [problem.split(": unknown key")[0] for problem in folder.problems()] == [
        "arkrelay.toml: nope",
        "arkrelay.toml: hostname: is required",
        'arkrelay.toml: smtp.max_recipients: expected an integer, got string "x"',
        'arkrelay.toml: smtp.errors: expected one of "reject", "accept-and-log", got string "y"',
        "platform.toml: keys[0].secret: is required",
        "tenants/acme.toml: domains[1].name: is required",
        'tenants/acme.toml: domains[1].trusted: expected true or false, got string "yes"',
        "tenants/beta.toml: is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)",
        "tenants/gamma.toml: name: is required",
        "tenants/gamma.toml: domains[0].name: a.example is already a domain of tenant acme",
    ]


def test_keys_of_a_list_are_numbered_as_in_the_file(folder: Folder) -> None:
    folder.main("[[listen]]\nservice = 'x'\naddress = '127.0.0.1:1'\n[[listen]]\nservice = 'http'\naddress = 'y'\n")
    assert [problem.split(": ")[1] for problem in folder.problems()] == ["listen[0].service", "listen[1].address"]


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "arkrelay.toml")
    assert str(caught.value).splitlines()[0] == f"{tmp_path}/arkrelay.toml: no such file"
    with pytest.raises(ConfigErrors, match="no such file"):
        load_settings(tmp_path / "arkrelay.toml")


def test_a_missing_folder_of_tenants_does_not_mean_no_tenants(folder: Folder) -> None:
    (folder.root / "tenants").rmdir()
    assert folder.problems() == ["arkrelay.toml: tenants_dir: tenants cannot be read: No such file or directory"]


def test_a_file_that_is_a_folder_cannot_be_read(folder: Folder) -> None:
    (folder.root / "tenants" / "acme.toml").mkdir()
    assert folder.problems() == ["tenants/acme.toml: cannot be read: Is a directory"]


def test_backups_and_hidden_files_are_no_tenants(folder: Folder) -> None:
    folder.tenant("acme")
    for name in (".acme.toml.swp", ".hidden.toml", "acme.toml~", "acme.toml.bak", "#acme.toml#", "README", ".lock"):
        folder.write(f"tenants/{name}", "not toml")
    assert list(folder.load().tenants) == ["acme"]


@pytest.mark.parametrize("stem", ["Acme", "-acme", "a.b", "ä", "x" * 64, "a b"])
def test_a_file_name_that_is_no_tenant_id_is_an_error(folder: Folder, stem: str) -> None:
    folder.tenant(stem)
    assert folder.problems() == [
        f"tenants/{stem}.toml: the name of the file is the tenant's id: expected [a-z0-9][a-z0-9_-]{{0,62}}.toml"
    ]


def test_a_listener_with_a_tenant_is_for_this_machine_only(folder: Folder) -> None:
    folder.tenant("acme")
    folder.certificate()
    folder.main(
        """
        [tls]
        certificate = "cert.pem"
        private_key = "key.pem"
        [[listen]]
        service = "submission"
        address = "0.0.0.0:587"
        tenant = "acme"
        """
    )
    assert folder.problems() == [
        (
            "arkrelay.toml: listen[0].tenant: would let anybody who reaches 0.0.0.0:587 send as acme: only on a "
            "loopback address or a unix socket"
        )
    ]


def test_without_listeners_there_are_two_for_this_machine(folder: Folder) -> None:
    assert folder.load().listeners == (
        Listen(service="submission", address="127.0.0.1:2525", tls="none"),
        Listen(service="http", address="127.0.0.1:8025", tls="none"),
    )


def test_listeners_have_their_tls_decided(folder: Folder) -> None:
    folder.certificate()
    listens = [
        ("submission", "127.0.0.1:1", ""),
        ("submission", "unix:/run/a", "none"),
        ("submission", "127.0.0.1:2", "optional"),
        ("submissions", "0.0.0.0:3", ""),
        ("bounces", "0.0.0.0:4", ""),
        ("bounces", "0.0.0.0:5", "none"),
        ("http", "127.0.0.1:6", ""),
        ("http", "127.0.0.1:7", "required"),
        ("http", "0.0.0.0:8", ""),
        ("http", "0.0.0.0:9", "none"),
        ("http", "unix:/run/b", ""),
    ]
    text = "[tls]\ncertificate = 'cert.pem'\nprivate_key = 'key.pem'\n"
    for service, address, tls in listens:
        text += f"[[listen]]\nservice = '{service}'\naddress = '{address}'\n" + (f"tls = '{tls}'\n" if tls else "")
    folder.main(text)
    assert [listen.tls for listen in folder.load().listeners] == [
        "required",
        "none",
        "optional",
        "required",
        "optional",
        "none",
        "none",
        "required",
        "required",
        "none",
        "none",
    ]


def test_a_certificate_must_belong_to_its_key(folder: Folder) -> None:
    folder.main("[tls]\ncertificate = 'cert.pem'\nprivate_key = 'key.pem'\n")
    folder.certificate(0, key_of=1)
    assert folder.problems() == ["arkrelay.toml: tls.private_key: key.pem is not the key of cert.pem"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("cert.pem", b"rubbish", "tls.certificate: cert.pem holds no PEM certificate"),
        ("key.pem", b"rubbish", "tls.private_key: key.pem cannot be used: "),
        ("cert.pem", b"x" * 100_000, "tls.certificate: cert.pem is longer than 65536 bytes"),
    ],
)
def test_a_broken_certificate_is_named(folder: Folder, name: str, content: bytes, problem: str) -> None:
    folder.main("[tls]\ncertificate = 'cert.pem'\nprivate_key = 'key.pem'\n")
    folder.certificate()
    folder.write(name, content)
    (found,) = folder.problems()
    assert found.startswith(f"arkrelay.toml: {problem}")


@pytest.mark.parametrize(("days", "word"), [(-2, "expired on"), (5, "expires on"), (60, None)])
def test_an_old_certificate_is_a_warning(folder: Folder, days: int, word: str | None) -> None:
    folder.main("[tls]\ncertificate = 'cert.pem'\nprivate_key = 'key.pem'\n")
    folder.certificate(days=days)
    assert [word in warning for warning in folder.load().warnings if word] == ([True] if word else [])
    assert bool(folder.load().warnings) is bool(word)


@pytest.mark.parametrize(
    ("retention", "retry", "short"),
    [
        ("", "", []),
        ('events = "3d"', "", ["events"]),
        ('events = "4d"', "", []),
        ('messages = "1d"\nevents = "1d"', "", ["messages", "events"]),
        ('messages = "0s"\nevents = "0s"', "", []),
        ('events = "90m"', 'retry = ["1h"]', []),
        ('events = "60m"', 'retry = ["1h"]', ["events"]),
        ('events = "59m"', 'retry = ["1m"]', ["events"]),  # what waits for who rests is kept for an hour at least
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_events_that_are_gone_before_they_are_given_up_are_a_warning(
    folder: Folder, retention: str, retry: str, short: list[str], enabled: bool
) -> None:
    folder.main(f"[retention]\n{retention}\n[webhooks]\n{retry}\n")
    hook = f"[[webhooks]]\nname = 'h'\nurl = 'https://h.example/'\nenabled = {str(enabled).lower()}\n"
    folder.tenant("acme", hook)
    found = folder.load().warnings
    assert [warning.split(": ")[1] for warning in found] == [f"retention.{key}" for key in short if enabled]
    assert all("is less than webhooks.retry takes" in warning for warning in found)


SECRET_FILES = [
    (
        "tenants/acme.toml",
        "name = 'A'\n[[credentials]]\nname = 'a'\nsecret = 'plain'\n",
        "tenants/acme.toml: holds secrets",
    ),
    ("platform.toml", "[[keys]]\nname = 'a'\nsecret = 'plain'\n", "platform.toml: holds secrets"),
    (
        "arkrelay.toml",
        (
            "hostname = 'a.example'\nstate_dir = 'state'\n[[route]]\ndomain = '*'\nhost = 'a:1'\nusername = 'u'\n"
            "secret = 'plain'\n"
        ),
        "arkrelay.toml: holds secrets",
    ),
]


@pytest.mark.parametrize(("name", "text", "problem"), SECRET_FILES, ids=[row[0] for row in SECRET_FILES])
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_a_file_with_secrets_that_others_can_read_is_refused(
    folder: Folder, name: str, text: str, problem: str, mode: int
) -> None:
    folder.write(name, text, mode)
    assert folder.problems() == [f"{problem} and has mode {mode:04o}, readable by others: chmod 600"]
    folder.write(name, text, 0o640)
    assert folder.load().settings.hostname


def test_a_file_whose_secrets_are_sealed_or_hashed_may_be_read_by_all(folder: Folder) -> None:
    folder.tenant("acme", f"[[credentials]]\nname = 'a'\nsecret = 'sha256:{'0' * 64}'\n", mode=0o644)
    assert folder.load().tenants["acme"].credentials


@pytest.mark.parametrize(
    ("where", "mode", "problem"),
    [
        ("key.pem", 0o644, "arkrelay.toml: tls.private_key: key.pem has mode 0644, readable by others: chmod 600"),
        ("state/keys/host.key", 0o640, "state/keys/host.key: mode 0640 lets others read it: chmod 600"),
        (
            "state/keys/dkim/k.pem",
            0o640,
            (
                "tenants/acme.toml: domains[0].dkim[0].private_key: state/keys/dkim/k.pem has "
                "mode 0640, readable by others than its owner: chmod 600"
            ),
        ),
        (
            "secret",
            0o644,
            "tenants/acme.toml: credentials[0].secret: secret has mode 0644, readable by others: chmod 600",
        ),
    ],
)
def test_a_key_file_that_others_can_read_is_refused(folder: Folder, where: str, mode: int, problem: str) -> None:
    folder.certificate()
    folder.dkim("k")
    folder.write("state/keys/host.key", bytes(32))
    folder.write("secret", "swordfish\n")
    folder.main("[tls]\ncertificate = 'cert.pem'\nprivate_key = 'key.pem'\n")
    folder.tenant(
        "acme",
        f"""
        [[credentials]]
        name = "a"
        secret = "file:{folder.root}/secret"
        [[domains]]
        name = "a.example"
        [[domains.dkim]]
        selector = "k"
        private_key = "dkim/k.pem"
        algorithm = "ed25519-sha256"
        """,
    )
    assert folder.load().find_credential("swordfish")
    (folder.root / where).chmod(mode)
    assert folder.problems() == [problem]


@pytest.mark.parametrize(
    ("content", "algorithm", "reason"),
    [
        (b"rubbish", "rsa-sha256", "state/keys/dkim/k.pem is no key for rsa-sha256: "),
        (None, "rsa-sha256", "state/keys/dkim/k.pem is no key for rsa-sha256: "),
    ],
)
def test_a_dkim_key_must_be_one_of_its_algorithm(
    folder: Folder, content: bytes | None, algorithm: str, reason: str
) -> None:
    folder.dkim("k")  # Ed25519
    if content is not None:
        folder.write("state/keys/dkim/k.pem", content)
    folder.tenant(
        "acme",
        "[[domains]]\nname = 'a.example'\n[[domains.dkim]]\nselector = 'k'\nprivate_key = 'dkim/k.pem'\n"
        f"algorithm = '{algorithm}'",
    )
    (problem,) = folder.problems()
    assert problem.startswith(f"tenants/acme.toml: domains[0].dkim[0].private_key: {reason}")


def test_selectors_are_labels_and_unique(folder: Folder) -> None:
    folder.dkim("k")
    key = "[[domains.dkim]]\nselector = '{}'\nprivate_key = 'dkim/k.pem'\nalgorithm = 'ed25519-sha256'\n"
    folder.tenant("acme", "[[domains]]\nname = 'a.example'\n" + "".join(key.format(s) for s in ("a", "A", "b c")))
    assert folder.problems() == [
        "tenants/acme.toml: domains[0].dkim[1].selector: A is used twice",
        "tenants/acme.toml: domains[0].dkim[2].selector: expected letters, digits and inner hyphens",
    ]


def test_a_secret_is_one_owners_over_all_files(folder: Folder) -> None:
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'same'\n")
    folder.tenant("acme", "[[credentials]]\nname = 'a'\nsecret = 'same'\n")
    folder.tenant("beta", "[[credentials]]\nname = 'a'\nsecret = 'same'\n")
    assert folder.problems() == [
        'tenants/acme.toml: credentials[0].secret: is the same as that of organisation key "ops"',
        'tenants/beta.toml: credentials[0].secret: is the same as that of organisation key "ops"',
    ]


def test_names_of_hosts_and_routes_become_a_labels(folder: Folder) -> None:
    folder.main("[[route]]\ndomain = '*.Bücher.example'\nhost = 'smart:25'\n", hostname="Relay.Bücher.example")
    settings = folder.load().settings
    assert settings.hostname == "relay.xn--bcher-kva.example"
    assert settings.route[0].domain == "*.xn--bcher-kva.example"
    assert settings.return_path_host == "rp.relay.xn--bcher-kva.example"


def test_paths_start_at_the_file_that_names_them(folder: Folder) -> None:
    os.chdir("/")
    snapshot = folder.load()
    assert snapshot.settings.state_dir == folder.state
    assert snapshot.settings.tenants_dir == folder.root / "tenants"


def test_a_secret_never_shows_in_a_repr(folder: Folder) -> None:
    folder.main("[[route]]\ndomain = '*'\nhost = 'smart:25'\nusername = 'u'\nsecret = 'swordfish'\n")
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'marlinspike'\n")
    folder.tenant("acme", "[[credentials]]\nname = 'a'\nsecret = 'correct-horse'\n")
    folder.write("state/keys/host.key", b"k" * 32)
    shown = repr(folder.load())
    assert "production" not in shown
    for secret in ("swordfish", "marlinspike", "correct-horse", "kkkk"):
        assert secret not in shown


@pytest.mark.parametrize("secret", ["swordfish\\n", "sword\\u0000fish"])
def test_a_problem_never_repeats_a_secret(folder: Folder, secret: str) -> None:
    folder.tenant("acme", f'[[credentials]]\nname = "a"\nsecret = "{secret}"\n')
    assert folder.problems() == [
        "tenants/acme.toml: credentials[0].secret: holds a control character or a line break"
    ]
