"""Nodemailer, PHPMailer, Django's e-mail backend and Rails's mailer: what an app sends arrives as it was written."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peers.office import Door, Letter, Office
from peers.processes import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPTS = Path(__file__).parent / "clients"
DOORS = ["local", "submission", "submissions"]
LIBRARIES = ["nodemailer", "phpmailer", "django"]

Need = Callable[[str | Path], Path]


@dataclass(frozen=True)
class Library:
    """One script of ``clients/`` and how it is run."""

    command: tuple[str | Path, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    async def send(self, office: Office, door: Door, *letters: Letter, **options: Any) -> Ran:
        """Run the script; the certificate of the relay must convince it."""
        environment = {**self.environment, "SSL_CERT_FILE": str(office.ca_file)}
        return await office.run(*self.command, office.settings(door, *letters, **options), environment=environment)


def _node_modules() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ARKRELAY_NODE_MODULES") or cache / "arkrelay-tests" / "node_modules")


@pytest.fixture(scope="module")
def nodemailer(need: Need) -> Library:
    modules = need(_node_modules() / "nodemailer").parent
    return Library((need("node"), SCRIPTS / "nodemailer.js"), {"NODE_PATH": str(modules)})


@pytest.fixture(scope="module")
def phpmailer(need: Need) -> Library:
    need(Path("/usr/share/php/libphp-phpmailer/autoload.php"))
    return Library((need("php"), SCRIPTS / "phpmailer.php"))


@pytest.fixture(scope="module")
def django() -> Library:
    return Library((sys.executable, SCRIPTS / "django_mail.py"))


@pytest.fixture(scope="module")
def rails(need: Need) -> Library:
    need(Path("/usr/share/rubygems-integration/all/specifications"))
    return Library((need("ruby"), "-W0", SCRIPTS / "action_mailer.rb"))


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Library:
    """Give the library that the test's parameter names."""
    found: Library = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
@pytest.mark.parametrize("name", DOORS)
async def test_a_letter_arrives_as_written_and_bcc_stays_hidden(office: Office, library: Library, name: str) -> None:
    letter = Letter(office.recipient(), bcc=office.recipient("hidden"))
    ran = await library.send(office, office.door(name), letter)
    assert ran.status == 0, ran.said
    for recipient in (letter.to, letter.bcc):
        received = await office.check(letter, recipient)
        assert letter.bcc.encode() not in received.content


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
async def test_several_letters_over_one_connection(office: Office, library: Library) -> None:
    letters = [Letter(office.recipient()) for _ in range(3)]
    ran = await library.send(office, office.door("submission"), *letters, pool=1)
    assert ran.status == 0, ran.said
    for letter in letters:
        await office.check(letter)


@pytest.mark.parametrize("name", DOORS)
async def test_a_letter_of_rails_arrives(office: Office, rails: Library, name: str) -> None:
    """In ASCII: Debian 12's Mail, beneath ActionMailer, writes a "=0D" of its own at each line end of other text."""
    letter = Letter(
        office.recipient(),
        bcc=office.recipient("hidden"),
        text="Hello,\n\n.a line that begins with a dot\n..\nBye\n",
        html="<p>Hello</p>\n",
    )
    ran = await rails.send(office, office.door(name), letter)
    assert ran.status == 0, ran.said
    for recipient in (letter.to, letter.bcc):
        received = await office.check(letter, recipient)
        assert letter.bcc.encode() not in received.content


async def test_nodemailer_with_a_pool_of_connections(office: Office, nodemailer: Library) -> None:
    letters = [Letter(office.recipient()) for _ in range(8)]
    ran = await nodemailer.send(office, office.door("submissions"), *letters, pool=3)
    assert ran.status == 0, ran.said
    assert ran.out.count("250 2.0.0") == len(letters)
    for letter in letters:
        await office.check(letter)


@pytest.mark.parametrize(
    ("library", "mechanism"),
    [(library, mechanism) for library in ("nodemailer", "phpmailer") for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5")],
    indirect=["library"],
)
async def test_each_mechanism(office: Office, library: Library, mechanism: str) -> None:
    letter = Letter(office.recipient())
    ran = await library.send(office, office.door("submission"), letter, mechanism=mechanism)
    assert ran.status == 0, ran.said
    await office.check(letter)


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("nodemailer", "EAUTH 535: "),
        ("phpmailer", "Could not authenticate"),  # all that PHPMailer says of it
        ("django", "SMTPAuthenticationError: (535, "),
        ("rails", "Net::SMTPAuthenticationError: 535 5.7.8"),
    ],
    indirect=["library"],
)
async def test_a_wrong_password_is_535(office: Office, library: Library, said: str) -> None:
    letter = Letter(office.recipient())
    ran = await library.send(office, office.door("submissions", password="wrong"), letter)
    assert ran.status == 1, ran.said
    assert said in ran.err
    assert not await office.known(letter.to)


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("nodemailer", "EENVELOPE 550: "),
        ("phpmailer", "550"),
        ("django", "SMTPSenderRefused: (550, "),
    ],
    indirect=["library"],
)
async def test_a_foreign_sender_is_550_5_7_1(office: Office, library: Library, said: str) -> None:
    letter = Letter(office.recipient(), sender="ceo@other.test")
    ran = await library.send(office, office.door("local"), letter)
    assert ran.status == 1, ran.said
    assert said in ran.err
    assert "5.7.1" in ran.err
    assert "other.test" in ran.err
    assert not await office.known(letter.to)
