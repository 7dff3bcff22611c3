"""What is to be published, held against what a zone has: ready, missing, different, or more than there should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arkrelay.model.domain import DnsStatus
from arkrelay.model.reply import Failure
from arkrelay.policy import dmarc
from arkrelay.policy.records import Record, RecordSet, Verdicts
from arkrelay.policy.zoneforms import Entry, Sheet

Answer = Sequence[str] | Failure


@dataclass(frozen=True, slots=True)
class Line:
    """How one record stands. ``found`` is what DNS has at its name and type, ``advice`` what to change."""

    record: Record
    status: str  # ok | missing | different | extra | unknown
    optional: bool
    found: tuple[str, ...] = ()
    advice: str = ""

    @property
    def counts(self) -> bool:
        """Whether the zone is not ready while this line stays as it is."""
        return self.status != "ok" and not (self.optional and self.status == "missing")


def of_domain(
    sheet: Sheet, records: RecordSet, verdicts: Verdicts, found: Mapping[tuple[str, str], Answer]
) -> list[Line]:
    """Return a line for each record of a sender domain; ``found`` is what DNS has, by name and type.

    "extra" is a name at which ours is right and something stands beside it that spoils it: a second SPF or DKIM
    record, of which receivers take none.
    """
    lines = []
    for entry in sheet.entries:
        record = entry.record
        answer = found[record.full_name, record.type]
        if isinstance(answer, Failure):
            lines.append(Line(record, "unknown", entry.optional, advice=answer.detail))
        elif record is records.spf:
            lines.append(_line(entry, verdicts.spf.status, verdicts.spf.error, _of_spf(answer)))
        elif record is records.return_path:
            lines.append(_line(entry, verdicts.return_path.status, verdicts.return_path.error, answer))
        elif record.full_name in verdicts.keys:
            verdict = verdicts.keys[record.full_name]
            lines.append(_line(entry, verdict.status, verdict.error, answer))
        else:
            lines.append(_dmarc(entry, answer))
    return lines


def of_machine(sheet: Sheet, found: Mapping[tuple[str, str], Answer]) -> list[Line]:
    """Return a line for each record of the relay's own names; whether another SPF record passes, `doctor` knows."""
    lines = []
    for entry in sheet.entries:
        record = entry.record
        answer = found[record.full_name, record.type]
        if isinstance(answer, Failure):
            lines.append(Line(record, "unknown", entry.optional, advice=answer.detail))
            continue
        have = _of_spf(answer) if record.type == "TXT" else tuple(answer)
        if record.value in have:
            lines.append(Line(record, "ok", entry.optional, have))
        else:
            status = "different" if have else "missing"
            lines.append(Line(record, status, entry.optional, have, f"publish {record.type} {record.value}"))
    return lines


def _line(entry: Entry, status: DnsStatus | None, error: str | None, found: Sequence[str]) -> Line:
    words = {DnsStatus.OK: "ok", DnsStatus.MISSING: "missing", DnsStatus.INVALID: "different", None: "unknown"}
    word = words[status]
    ours = any(_same(entry.record.value, text) for text in found)
    if word == "different" and ours and len(found) > 1:
        word = "extra"
    return Line(entry.record, word, entry.optional, tuple(found), error or "")


def _dmarc(entry: Entry, found: Sequence[str]) -> Line:
    """A DMARC record of any policy will do: ours is a suggestion."""
    claims = [text for text in found if text.lower().startswith("v=dmarc1")]
    if not claims:
        return Line(entry.record, "missing", entry.optional, advice=entry.note)
    if len(claims) > 1:
        advice = f"{len(claims)} DMARC records, and receivers then take none: leave one"
        return Line(entry.record, "extra", entry.optional, tuple(claims), advice)
    if dmarc.parse_record(claims[0]) is None:
        return Line(entry.record, "different", entry.optional, tuple(claims), "receivers cannot read it")
    return Line(entry.record, "ok", entry.optional, tuple(claims))


def _of_spf(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the TXT records that are about SPF: what else stands at the name is not our business."""
    return tuple(text for text in texts if text.lower().startswith("v=spf1"))


def _same(one: str, other: str) -> bool:
    return "".join(one.lower().split()).rstrip(";.") == "".join(other.lower().split()).rstrip(";.")
