"""A pasted reply is read in every shape that people have it in, judged as mail is, and explained to the end."""

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkrelay.model.attempt import BounceClass
from arkrelay.model.delivery import Delivery, Route, Source
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.model.settings import Settings, Suppression
from arkrelay.policy.advice import Blame, book
from arkrelay.policy.classify import Rules, classify
from arkrelay.policy.explain import MEANING, Explanation, explain, site_named
from arkrelay.policy.pasted import NotAReply, parse
from arkrelay.policy.providers import shipped

RULES = Rules.load()
SETTINGS = Settings(hostname="relay.test")
DATA = tomllib.loads((Path(__file__).parents[2] / "data" / "replies.toml").read_text(encoding="utf-8"))
ROWS = [row for end in ("hard", "soft") for row in DATA[end] if row["reply"][0] in "45"]


def explained(given: str, site: str = "", **changes: Any) -> Explanation:
    return explain(given, RULES, Settings(hostname="relay.test", **changes), site)


def as_given(reply: str) -> str:
    return reply


def as_lines(reply: str) -> str:
    words = reply.split(" ")
    if len(words) < 3:
        return reply
    head = f"{words[0]}-{words[1]}" if words[1].count(".") == 2 else f"{words[0]}-"
    rest = words[2:] if words[1].count(".") == 2 else words[1:]
    middle = len(rest) // 2
    return f"{head} {' '.join(rest[:middle])}\r\n{head.replace('-', ' ', 1)} {' '.join(rest[middle:])}\r\n"


def as_our_log(reply: str) -> str:
    return json.dumps({"event": "recipient_settled", "seconds": 0.45, "reply": reply, "status": "softfail"})


def as_our_console(reply: str) -> str:
    return f"2026-11-28 17:00:01 [info] recipient_settled id=x450 reply={reply!r} seconds=0.451 status=softfail"


def as_postfix(reply: str) -> str:
    return (
        "Nov 28 17:00:01 mx postfix/smtp[4501]: 4F3B2550: to=<bob@x.test>, relay=mx.x.test[192.0.2.5]:25, delay=450,"
        f" delays=0.1/0/0.3/0.2, dsn=4.0.0, status=deferred (host mx.x.test[192.0.2.5] said: {reply}"
        " (in reply to RCPT TO command))"
    )


def as_exim(reply: str) -> str:
    return (
        "2026-11-28 17:00:01 1abc-000-550 == bob@x.test R=dnslookup T=smtp defer (-44) H=mx.x.test [192.0.2.5]:"
        f" SMTP error from remote mail server after RCPT TO:<bob@x.test>: {reply}"
    )


def as_our_reason(reply: str) -> str:
    return f"{reply[:3]} policy violation: Delivery to bob@x.test failed at 192.0.2.5:25 (mx.x.test): {reply}"


SHAPES = [as_given, as_lines, as_our_log, as_our_console, as_postfix, as_exim, as_our_reason]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_reply_means_the_same_in_every_shape_and_what_it_means_for_mail(shape: Any) -> None:
    for row in ROWS:
        code, _, rest = row["reply"].partition(" ")
        word, _, after = rest.partition(" ")
        enhanced = word if word.count(".") == 2 and word.replace(".", "").isdigit() and word[0] == code[0] else None
        meant = classify(Reply(int(code), enhanced, after if enhanced else rest, Stage.RCPT), RULES, attempts=1)
        found = explained(shape(row["reply"]))
        assert (found.bounce_class, found.permanent) == (meant.bounce_class, meant.permanent), (shape, row["reply"])
        assert found.code == int(code)
        assert enhanced in {None, found.enhanced}  # what is read out of #5.1.0 stands in no field of the reply


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("550", Reply(550, None, "", Stage.RCPT)),
        ("550-5.1.1 one\n550 5.1.1 two", Reply(550, "5.1.1", "one two", Stage.RCPT)),
        ("550-5.1.1 one 550-5.1.1 two 550 5.1.1 three", Reply(550, "5.1.1", "one two three", Stage.RCPT)),
        ("<<< 550 #5.1.0 Address rejected.", Reply(550, "5.1.0", "Address rejected.", Stage.RCPT)),
        ("450 5.1.1 later", Reply(450, None, "5.1.1 later", Stage.RCPT)),
        ("smtp; 552 5.2.2 over quota", Reply(552, "5.2.2", "over quota", Stage.RCPT)),
        ("5.1.1", Reply(550, "5.1.1", "", Stage.RCPT)),
        ("4.2.2 full", Reply(450, "4.2.2", "full", Stage.RCPT)),
        ("mailbox is full", Reply(550, None, "mailbox is full", Stage.RCPT)),
        ("host x said: 554 no (in reply to end of DATA command)", Reply(554, None, "no", Stage.DOT)),
        ("host x refused to talk to me: 554 5.7.1 no", Reply(554, "5.7.1", "no", Stage.GREETING)),
        ("a\x00b\x1b[2J 550 5.1.1 no\x07", Reply(550, "5.1.1", "no", Stage.RCPT)),
        ("connect to x[192.0.2.1]:25: Connection refused", FailureKind.REFUSED),
        ("no connection within 30 s", FailureKind.TIMEOUT),
        ("nothing within 60 s before the reply to the final dot", FailureKind.TIMEOUT),
        ("the peer closed before its greeting", FailureKind.CLOSED),
        ("certificate: hostname mismatch", FailureKind.TLS),
        ("NXDOMAIN", FailureKind.NO_DOMAIN),
    ],
)
def test_what_people_paste_is_read(given: str, result: Reply | FailureKind) -> None:
    found = parse(given).result
    assert found == result or (isinstance(found, Failure) and found.kind is result)


@pytest.mark.parametrize("given", ["", "  \n", "250 2.0.0 ok", "354 go ahead", "220 mx.test ESMTP", '{"reply": ""}'])
def test_what_tells_of_no_refusal_is_said_so(given: str) -> None:
    with pytest.raises(NotAReply):
        explained(given)


@pytest.mark.parametrize(
    ("given", "blame", "says"),
    [
        ("550 5.1.1 no such user", Blame.RECIPIENT, "take this one off"),
        ("552 5.2.2 over quota", Blame.RECIPIENT, "make room"),
        ("450 4.2.0 greylisted", Blame.SERVER, "greylisting"),
        ("550 5.7.1 blocked using zen.spamhaus.org", Blame.REPUTATION, "ask for removal"),
        ("421 4.7.28 unusual rate of mail", Blame.REPUTATION, "send less"),
        ("452 too many messages from your address, slow down", Blame.US, "[[provider]]"),
        ("550 5.7.1 message contains spam", Blame.CONTENT, "unsubscribe"),
        ("550 5.7.26 neither SPF nor DKIM", Blame.AUTHENTICATION, "arkrelay domain dns"),
        ("550 5.7.25 no PTR record", Blame.AUTHENTICATION, "relay.test"),
        ("530 5.7.0 Must issue a STARTTLS command first", Blame.US, "tls ="),
        ("connection refused", Blame.NETWORK, "port 25"),
        ("550 5.7.133 the recipient restricts who may write: RestrictedRecipient", Blame.SERVER, "who may write"),
    ],
)
def test_it_says_whose_fault_it_is_and_what_can_be_done(given: str, blame: Blame, says: str) -> None:
    found = explained(given)
    assert found.blame is blame
    assert says in found.next
    assert found.sentence.endswith(".")


def test_what_is_refused_for_our_address_goes_another_way_where_there_is_one() -> None:
    listed = "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org"
    route = Route(domain="*", host="clean.example:587", when="sender-reputation")
    two = (Source(address="192.0.2.1"), Source(address="192.0.2.2"))
    assert "fails at once" in explained(listed).does[0]
    assert "fails at once" in explained(listed, source=two[:1]).does[0]
    assert "at once, from another address of its pool" in explained(listed, source=two).does[0]
    assert "at once, by the route to clean.example:587" in explained(listed, route=(route,)).does[0]
    assert "fails at once" in explained("550 5.1.1 no such user", source=two, route=(route,)).does[0]


def test_what_we_do_follows_the_settings_in_force() -> None:
    bad, spam = "550 5.1.1 no such user", "550 5.7.1 spam"
    assert "is suppressed" in explained(bad).does[1]
    assert "not suppressed" in explained(spam).does[1]
    assert "is suppressed" in explained(spam, suppression=Suppression(on="any-hardfail")).does[1]
    assert "not suppressed" in explained(bad, suppression=Suppression(on="off")).does[1]
    later = explained("451 4.3.0 later", delivery=Delivery(first_delay_s=60, max_attempts=3, lifetime_s=3600))
    assert later.does[0] == (
        "The recipient is tried again after 1 min; each later wait is 1.3 times longer, up to 3 attempts or 1 h."
    )
    assert "after 5 min 10 s, as the reply asks" in explained("450 try again in 300 seconds").does[0]
    assert "once more, after 15 min" in explained("NXDOMAIN").does[0]


@pytest.mark.parametrize(
    ("given", "lane"),
    [
        ("550 5.7.1 blocked using zen.spamhaus.org", "rests for 1 h, twice as long each time up to 6 h"),
        ("421 4.7.28 unusual rate", "one message a minute"),
        ("connection refused", "rests for 1 min, twice as long each time up to 15 min"),
        ("550 5.1.1 no such user", None),
    ],
)
def test_it_says_what_the_lane_does(given: str, lane: str | None) -> None:
    does = explained(given).does
    assert len(does) == (2 if lane is None else 3)
    assert lane is None or lane in does[2]


@pytest.mark.parametrize(
    ("given", "site", "pages"),
    [
        ("550 5.7.1 blocked using zen.spamhaus.org", "", ["Spamhaus"]),
        ("550 5.7.1 [BL21] blocked", "yahoo", ["Yahoo Sender Hub"]),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "microsoft", [
            "Microsoft 365 delisting", "Outlook.com sender support", "Outlook.com SNDS and JMRP"]),
        ("550 5.7.26 unauthenticated a1-2002si1 - gsmtp", "google", [
            "Google Postmaster Tools", "Google's rules for senders"]),
        ("550 5.1.1 no such user a1-2002si1 - gsmtp", "google", []),
        ("550 5.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1", "", ["Proofpoint"]),
        ("554 listed in dnsbl.sorbs.net", "", ["SORBS"]),
    ],
)  # fmt: skip
def test_it_says_who_speaks_and_where_to_ask(given: str, site: str, pages: list[str]) -> None:
    found = explained(given)
    assert found.site == site
    assert [page.name for page in found.pages] == pages


@pytest.mark.parametrize(
    ("provider", "host", "site"),
    [
        ("google", "", "google"),
        ("Gmail", "", "google"),
        ("", "gmail-smtp-in.l.google.com", "google"),
        ("", "gmail.com", "google"),
        ("", "hotmail.com", "microsoft"),
        ("", "mta5.am0.yahoodns.net.", "yahoo"),
        ("", "mx1.some.example.co.uk", "example.co.uk"),
        ("smarthost.test:587", "", "smarthost.test:587"),
        ("", "127.0.0.1:2599", "127.0.0.1:2599"),
        ("", "192.0.2.1", "192.0.2.1"),
        ("", "", ""),
    ],
)
def test_a_site_is_known_by_its_name_a_host_or_a_domain(provider: str, host: str, site: str) -> None:
    assert site_named(provider, host, SETTINGS) == site


def test_there_is_advice_for_every_class_and_a_page_only_for_sites_that_there_are() -> None:
    assert set(MEANING) == set(BounceClass)
    last = {one.bounce_class: one for one in book().advice}
    assert set(last) == set(BounceClass)
    for one in last.values():  # the last of each class takes what the others leave
        assert one.text is None
        assert not one.lane
    sites = {one.name for one in book().sites}
    assert {page.site for page in book().pages} - {""} <= sites
    assert {one.name for one in shipped()} <= sites | {"t-online.de"}
    for page in book().pages:
        assert page.url.startswith("https://") or not page.url
        assert page.site or page.text is not None
    sources = {rule.source.partition(":")[0] for rule in RULES.all}
    for site in book().sites:
        assert site.sources <= sources, site.name


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=400), st.from_regex(r"[2-5][0-9]{2}[ -]([245]\.[0-9]\.[0-9]{1,2} )?.{0,80}")))
def test_rubbish_is_explained_or_refused_and_nothing_else(given: str) -> None:
    try:
        found = explained(given)
    except NotAReply:
        return
    assert found.sentence
    assert found.next
    assert str(found.result).isprintable()
    assert len(str(found.result)) <= 520


@pytest.mark.parametrize(
    "part",
    [
        "after x: ",
        'reply="',
        "failed at a:b (",
        "said: ",
        "550 ",
        "550-5.1.1 ",
        "in reply to data ",
        "5.1.1 ",
        "\n550-x",
    ],
)
def test_a_paste_that_is_made_to_be_slow_is_not(part: str) -> None:
    began = time.process_time()
    explained(f"x{part * 20_000}", site="google")
    assert time.process_time() - began < 1  # some 50 ms
