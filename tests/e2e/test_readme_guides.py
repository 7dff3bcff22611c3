"""The settings that the README gives for apps send mail, in those apps' own mailers."""

import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from peers.office import Office, lines, parse
from peers.readme import BLOCKS, README
from peers.wordpress import OWNER, Programs, WordPress

pytestmark = pytest.mark.asyncio(loop_scope="module")

Need = Callable[[str | Path], Path]

RUBY = """
require 'action_mailer'
require 'ostruct'
config = OpenStruct.new(action_mailer: OpenStruct.new)
{settings}
ActionMailer::Base.logger = nil
ActionMailer::Base.delivery_method = config.action_mailer.delivery_method
ActionMailer::Base.smtp_settings = config.action_mailer.smtp_settings
class Letters < ActionMailer::Base
  def one
    mail(from: 'app@sender.test', to: '{to}', subject: 'from rails') {{ |as| as.text {{ render plain: 'hi' }} }}
  end
end
Letters.one.deliver_now
"""
PHPMAILER = """<?php
require '/usr/share/php/libphp-phpmailer/autoload.php';
$mailer = new PHPMailer\\PHPMailer\\PHPMailer(true);
{settings}
$mailer->addAddress('{to}');
$mailer->Subject = 'from phpmailer';
$mailer->Body = 'hi';
$mailer->SMTPOptions = ['ssl' => ['cafile' => getenv('SSL_CERT_FILE')]];
$mailer->send();
"""
DJANGO = """
import django.conf
from django.core.mail import send_mail
settings = {{}}
exec({settings!r}, settings)
django.conf.settings.configure(**{{name: value for name, value in settings.items() if name.isupper()}})
send_mail("from django", "hi", None, ["{to}"])
"""
NODE = """
{settings}
transport.sendMail({{ from: 'app@sender.test', to: '{to}', subject: 'from nodemailer', text: 'hi' }})
  .catch((error) => {{ console.error(error); process.exit(1); }});
"""


def settings(name: str, office: Office) -> str:
    """Return the README's settings with our host, port, name and password, which stand where the examples stood."""
    door, text = office.door("submissions"), BLOCKS[name]
    for example, real in (
        (r"relay\.example\.com", "127.0.0.1"),
        (r"\b465\b", str(door.port)),
        (r"main/first", door.username),
        (r"(?<![A-Z_])PASSWORD", door.password),
    ):
        text, count = re.subn(example, real, text)
        assert count > 0, (name, example)
    return text.replace("example.com", "sender.test")


async def test_every_block_is_tried_and_every_app_is_there() -> None:
    assert set(BLOCKS) == {"vps", "backup", "restore", "rails", "wordpress", "django", "nodemailer", "swaks"}
    for app in (
        *("Listmonk", "Coolify", "Metabase", "Grafana", "GitLab", "WordPress", "Ghost", "n8n", "Rails", "Django"),
        *("Laravel", "Spring Boot", "Nodemailer", "PHPMailer", "`net/smtp`", "swaks"),
    ):
        assert app in README.partition("## Settings of apps")[2].partition("\n## ")[0], app


@pytest.mark.parametrize("name", ["rails", "phpmailer", "django", "nodemailer", "swaks"])
async def test_an_app_set_up_as_the_readme_says_sends(office: Office, need: Need, tmp_path: Path, name: str) -> None:
    to = office.recipient()
    environment = {"SSL_CERT_FILE": str(office.ca_file), "NODE_EXTRA_CA_CERTS": str(office.ca_file)}
    script = tmp_path / "script"
    given = settings("wordpress" if name == "phpmailer" else name, office)  # the same names hold
    match name:
        case "rails":
            command: list[str | Path] = [need("ruby"), "-W0", script]
            script.write_text(RUBY.format(settings=given, to=to))
        case "phpmailer":
            need(Path("/usr/share/php/libphp-phpmailer/autoload.php"))
            command = [need("php"), script]
            script.write_text(PHPMAILER.format(settings="\n".join(re.findall(r"\$mailer->.*", given)), to=to))
        case "django":
            command = [sys.executable, script]
            script.write_text(DJANGO.format(settings=given, to=to))
        case "nodemailer":
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            modules = Path(os.environ.get("ARKRELAY_NODE_MODULES") or cache / "arkrelay-tests" / "node_modules")
            environment["NODE_PATH"] = str(need(modules / "nodemailer").parent)
            command = [need("node"), script]
            script.write_text(NODE.format(settings=given, to=to))
        case _:
            need("swaks")
            command = [need("sh"), script]
            script.write_text(given.replace("friend@example.net", to))
    ran = await office.run(*command, environment=environment)
    assert ran.status == 0, ran.said
    received = await office.arrived(to)
    assert parse(received.content)["From"].addresses[0].domain == "sender.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(office: Office, need: Need) -> AsyncIterator[WordPress]:
    """Give a WordPress with the README's settings; its host is not the domain that the relay lets us send from."""
    programs = Programs(
        need(Path("/usr/share/wordpress/wp-settings.php")).parent,
        need("php"),
        need("mariadbd"),
        need("mariadb-install-db"),
    )
    async with WordPress(programs, office.ca_file, "blog.elsewhere.test") as opened:
        opened.plugin.write_text(settings("wordpress", office))
        await opened.install("My blog", "owner@rcpt.test")
        yield opened


async def test_wordpress_set_up_as_the_readme_says_sends_all_its_mail(office: Office, site: WordPress) -> None:
    reader = office.recipient("reader")
    form = "['From: Shop <shop@elsewhere.test>', 'Reply-To: bob@elsewhere.test']"
    assert await site.call(f"return retrieve_password('{OWNER}');") is True
    assert await site.call(f"return wp_mail('{reader}', 'Grüße', 'Hällo', {form});") is True
    own = [parse(received.content) for received in await office.all_arrived("owner@rcpt.test", 2)]
    written = parse((await office.arrived(reader)).content)
    assert {message["Subject"] for message in own} == {"New WordPress Site", "[My blog] Password Reset"}
    assert any("action=rp&key=" in line for message in own for line in lines(message, "plain"))
    assert (written["Subject"], lines(written, "plain")) == ("Grüße", ["Hällo"])
    assert written["Reply-To"].addresses[0].addr_spec == "bob@elsewhere.test"
    assert {message["From"] for message in (*own, written)} == {"Example <wordpress@sender.test>"}
    (accepted,) = await office.relay.logged("message_accepted", id=(await office.shown(reader))["id"])
    assert (accepted["credential"], accepted["author"]) == ("production", "wordpress@sender.test")


async def test_wordpress_with_a_wrong_password_tells_its_caller_and_sends_nothing(
    office: Office, site: WordPress
) -> None:
    reader, door = office.recipient("reader"), office.door("submissions")
    right = site.plugin.read_text()
    site.plugin.write_text(right.replace(door.password, "wrong"))
    try:
        assert await site.call(f"return wp_mail('{reader}', 'hi', 'hi');") is False
        assert "retrieve_password_email_failure" in await site.call(
            f"return retrieve_password('{OWNER}')->get_error_codes();"
        )
    finally:
        site.plugin.write_text(right)
    await office.relay.logged("auth_failed", 2)
    assert not await office.known(reader)


async def test_wordpress_at_localhost_needs_the_line_that_the_readme_names(office: Office, site: WordPress) -> None:
    reader = office.recipient("reader")
    without = site.plugin.read_text()
    (line,) = re.findall(r"`(add_filter\('wp_mail_from', .*\);)`", README)
    send = f"add_filter('home_url', fn () => 'http://localhost'); return wp_mail('{reader}', 'hi', 'hi');"
    assert await site.call(send) is False
    site.plugin.write_text(without + line)
    try:
        assert await site.call(send) is True
    finally:
        site.plugin.write_text(without)
    assert parse((await office.arrived(reader)).content)["From"] == "Example <wordpress@sender.test>"
