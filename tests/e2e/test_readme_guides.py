"""The settings that the README gives for apps send mail, in those apps' own mailers."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from peers.office import Office, parse
from peers.readme import BLOCKS, README

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
# WordPress calls who has added himself to phpmailer_init before each mail (wp_mail in wp-includes/pluggable.php)
PHP = """<?php
require '/usr/share/php/libphp-phpmailer/autoload.php';
function add_action($name, $do) {{ if ($name === 'phpmailer_init') {{ $GLOBALS['init'] = $do; }} }}
{settings}
$mailer = new PHPMailer\\PHPMailer\\PHPMailer(true);
$mailer->addAddress('{to}');
$mailer->Subject = 'from wordpress';
$mailer->Body = 'hi';
$mailer->SMTPOptions = ['ssl' => ['cafile' => getenv('SSL_CERT_FILE')]];
call_user_func_array($GLOBALS['init'], [&$mailer]);
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


@pytest.mark.parametrize("name", ["rails", "wordpress", "django", "nodemailer", "swaks"])
async def test_an_app_set_up_as_the_readme_says_sends(office: Office, need: Need, tmp_path: Path, name: str) -> None:
    to = office.recipient()
    environment = {"SSL_CERT_FILE": str(office.ca_file), "NODE_EXTRA_CA_CERTS": str(office.ca_file)}
    script = tmp_path / "script"
    given = settings(name, office)
    match name:
        case "rails":
            command: list[str | Path] = [need("ruby"), "-W0", script]
            script.write_text(RUBY.format(settings=given, to=to))
        case "wordpress":
            need(Path("/usr/share/php/libphp-phpmailer/autoload.php"))
            command = [need("php"), script]
            script.write_text(PHP.format(settings=given.removeprefix("<?php"), to=to))
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
