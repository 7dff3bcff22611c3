"""What the simulator writes is read as what a stranger's server would have written."""

from arkrelay.mail.report import parse_report
from arkrelay.mail.simulated import render_bounce, render_complaint
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.report import ReportKind

PATHS = ReturnPaths(b"0123456789abcdef")


def test_a_bounce_is_one_about_its_recipient() -> None:
    mark = PATHS.local_part(77, 0.0)
    report = parse_report(render_bounce(f"{mark}@rp.r.test", "bob@sim.test", "<1@x.test>", 0.0))
    finding = report.about("bob@sim.test")
    assert finding is not None
    assert (report.kind_for(finding), finding.status, finding.code) == (ReportKind.BOUNCE, "5.1.1", 550)


def test_a_complaint_names_the_return_path() -> None:
    mark = PATHS.local_part(77, 0.0)
    report = parse_report(render_complaint(f"{mark}@rp.r.test", "bob@sim.test", "<1@x.test>", 0.0))
    assert report.kind is ReportKind.COMPLAINT
    assert PATHS.parse(report.marks[0], 0.0) == 77
