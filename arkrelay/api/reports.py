"""What came back about one email after its recipient's server had taken it (beyond the contract)."""

from arkrelay.api.ask import Ask
from arkrelay.api.emails import find_email
from arkrelay.api.model import Answer, Nothing
from arkrelay.api.shapes import iso
from arkrelay.model.report import ReportKind
from arkrelay.store import reports


class Report(Answer):
    """One report; ``said`` is its reason or its text for people, ``content`` how it begins, null once forgotten."""

    id: int
    at: str
    kind: ReportKind
    form: str
    sender: str
    subject: str
    smtp_enhanced_code: str | None
    said: str
    content: str | None


class Reports(Answer):
    """Everything that came back about one email."""

    id: str
    tenant_id: str
    reports: list[Report]


async def list_all(ask: Ask[Nothing, Nothing]) -> Reports:
    """Bounces, delays, automatic replies, complaints and what nobody understood, oldest first."""
    recipient = await find_email(ask)
    found = await ask.parts.store.read(lambda db: reports.list_reports(db, recipient.id))
    return Reports(id=recipient.token, tenant_id=recipient.message.tenant_id, reports=[_shape(one) for one in found])


def _shape(one: reports.StoredReport) -> Report:
    return Report(
        id=one.id,
        at=iso(one.at),
        kind=one.kind,
        form=one.form,
        sender=one.sender,
        subject=one.subject,
        smtp_enhanced_code=one.status or None,
        said=one.said,
        content=one.content.decode("utf-8", "replace") if one.content else None,
    )
