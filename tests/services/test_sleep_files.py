"""What a night left, as far as it may be read: artifacts, checkpoints, numbers, its log and its report."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from in_memory import Night, Service
from test_errors import problem

from services.api.sleep_files import preferred
from services.job_log import safe
from services.night_numbers import series
from services.tables import Event

SECRET = "the city of mira is oslo ."
GATE = {
    "passed": False,
    "reasons": ["forgotten 0.200 > 0.1", "<script>alert(1)</script> | **bold**"],
    "measured": {"agreement": 0.9, "taught": None, "dreamt": None, "forgotten": 0.2, "lost": 0.0, "nll_rise": 0.1},
}
REPORT = {
    "gate": GATE,
    "transfers": {"level-1": {"first_loss": 2.0, "final_loss": 0.5, "steps": 300}},
    "stages": {"collect": 1.0, "knowledge_seeding": 20.0},
    "phases": {},
}


@pytest.fixture
def asleep(service: Service) -> tuple[Service, str, Night]:
    service.deploy()
    service.tell(SECRET)
    sleep, night = service.sleep(held_out=["what nobody may read"])
    return service, sleep["id"], night


def seal(night: Night, stage: str, **outputs: Any) -> None:
    """A stage's manifest, as pipelines/stages.py writes it."""
    folder = Path(night.job.home) / "stages"
    folder.mkdir(exist_ok=True)
    sealed = {"stage": stage, "job_sha256": "", "seconds": 1.5, "outputs": outputs, "files": {"rows_file": "00"}}
    (folder / f"{stage}.json").write_text(json.dumps(sealed))


def ended(service: Service, sleep: str, night: Night, outcome: str = "rejected", **more: Any) -> dict[str, Any]:
    seal(night, "collect", experiences=1, tokens=8, rows=1)
    night.end(outcome, report=REPORT | more)
    return service.ended(sleep)


def test_artifacts_are_listed_with_their_digests_and_read_as_they_are(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    home = Path(night.job.home)
    (home / "dreaming" / "0").mkdir(parents=True)
    (home / "dreaming" / "0" / "dreams.jsonl").write_text("")
    (home / "night.svg").write_text("<svg/>")
    ended(service, sleep, night)
    listed = service.client.get(f"/v1/sleeps/{sleep}/artifacts").json()["data"]
    names = ["dreaming/0/dreams.jsonl", "night.svg", "outcome.json", "stages/collect.json"]
    assert [one["name"] for one in listed] == names
    for one in listed:
        answer = service.client.get(f"/v1/sleeps/{sleep}/artifacts/{one['name']}")
        assert answer.status_code == 200
        assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (one["bytes"], one["sha256"])
        assert answer.headers["content-type"].split(";")[0] == one["media_type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    [
        "job.json",
        "experiences.jsonl",
        "rows.jsonl",
        "train/checkpoint",
        "stages/../job.json",
        "..%2Fjob.json",
        "stages%2F..%2F..%2Fjob.json",
        "%2e%2e/%2e%2e/circadian.db",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "stages/",
        "stages/.collect.json.tmp-1",
        "link.json",
        "report.json",
        "linked/collect.json",
        "outcome.json/",
        "\u00e9.svg",
    ],
)
def test_nothing_else_of_a_nights_home_can_be_read(asleep: tuple[Service, str, Night], name: str) -> None:
    service, sleep, night = asleep
    home = Path(night.job.home)
    seal(night, "collect")
    (home / "stages" / ".collect.json.tmp-1").write_text("{}")
    (home / "report.json").symlink_to(home / "job.json")
    (home / "dreaming").symlink_to(home / "stages")
    answer = service.client.get(f"/v1/sleeps/{sleep}/artifacts/{name}")
    assert answer.status_code == 404, answer.text
    listed = [one["name"] for one in service.client.get(f"/v1/sleeps/{sleep}/artifacts").json()["data"]]
    assert listed == ["stages/collect.json"]


def test_the_folders_on_the_way_are_no_links_either(asleep: tuple[Service, str, Night], tmp_path: Path) -> None:
    service, sleep, night = asleep
    (tmp_path / "dreams.jsonl").write_text("somebody else's")
    (Path(night.job.home) / "dreaming").mkdir()
    (Path(night.job.home) / "dreaming" / "0").symlink_to(tmp_path)
    assert service.client.get(f"/v1/sleeps/{sleep}/artifacts").json()["data"] == []
    problem(service.client.get(f"/v1/sleeps/{sleep}/artifacts/dreaming/0/dreams.jsonl"), 404, "artifact_not_found")


def test_checkpoints_are_the_sealed_stages(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    assert service.client.get(f"/v1/sleeps/{sleep}/checkpoints").json()["data"] == []
    seal(night, "collect")
    digest = hashlib.sha256((Path(night.job.home) / "stages" / "collect.json").read_bytes()).hexdigest()
    told = service.client.get(f"/v1/sleeps/{sleep}/checkpoints").json()["data"]
    assert [(one["name"], one["digest"], one["seconds"], one["files"]) for one in told] == [("collect", digest, 1.5, 1)]
    assert told[0]["sealed_at"] > 0


def test_the_numbers_of_a_night_are_series_over_time(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    for step, loss in ((1, 0.5), (2, 0.25)):
        night.log.emit("sleep.progress", SECRET, task="seeding", step=step, total_steps=2, loss=loss, run="r", good=True)
    service.until(lambda: service.get_sleep(sleep)["progress"].get("step") == 2)
    told = service.client.get(f"/v1/sleeps/{sleep}/metrics", params={"names": "loss,step"}).json()
    assert [(one["name"], [point["value"] for point in one["points"]]) for one in told["data"]] == [
        ("loss", [0.5, 0.25]),
        ("step", [1, 2]),
    ]
    assert {point["of"] for one in told["data"] for point in one["points"]} == {"seeding"}
    every = service.client.get(f"/v1/sleeps/{sleep}/metrics").json()
    assert {"loss", "step", "total_steps"} <= {one["name"] for one in every["data"]}
    assert "good" not in {one["name"] for one in every["data"]}
    assert SECRET not in json.dumps(every)
    later = service.client.get(f"/v1/sleeps/{sleep}/metrics", params={"after_seq": every["last_seq"]}).json()
    assert later["data"] == []


def test_what_is_not_a_finite_number_is_no_point() -> None:
    event = Event(seq=1, created_at=0.0, data={"a": float("nan"), "b": "1", "c": None, "d": True, "e": [1.0], "f": 0.0})
    assert [one["name"] for one in series([event], ())] == ["f"]


LOG = f"""2026-11-03 02:14:07,123 __main__ night slp_1 falls over /v/ver_1 of dep_1
2026-11-03 02:14:08,000 pipelines.night token = sk-proj-Aq9ZkT3vLm8XwYb2NcRd7EfGh5JsUt1P
{SECRET}
Traceback (most recent call last):
  File "/home/someone/circadian/pipelines/wake.py", line 105, in collect
    raise ValueError({SECRET!r})
ValueError: {SECRET}
2026-11-03 02:14:09,000 somelibrary.reader cannot read {SECRET}
pydantic_core._pydantic_core.ValidationError: 1 validation error, input_value='{SECRET}'
(pid=1) {SECRET}
"""


def test_a_log_tells_what_we_logged_and_where_an_error_passed_and_no_text_and_no_secret() -> None:
    lines, more = safe(LOG, 100_000)
    assert not more
    told = "\n".join(lines)
    assert "oslo" not in told
    assert "sk-proj" not in told
    assert lines[0].endswith("night slp_1 falls over /v/ver_1 of dep_1")
    assert '  File "pipelines/wake.py", line 105, in collect' in lines
    assert "ValueError" in lines
    assert "/home/someone" not in told
    assert "lines left out]" in told


def test_of_a_long_log_the_end_is_told() -> None:
    line = "2026-11-03 02:14:07,123 pipelines.night stage"
    lines, more = safe("\n".join(f"{line} {i}" for i in range(1000)), 2000)
    assert more
    assert lines[-1].endswith("stage 999")
    assert sum(len(line) + 1 for line in lines) <= 2000


def test_the_log_of_a_job_is_told_through_the_launcher(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    service.launcher.said[night.submission] = LOG
    told = service.client.get(f"/v1/sleeps/{sleep}/logs").json()
    assert (told["attempt"], told["truncated"]) == (1, False)
    assert "oslo" not in json.dumps(told)
    assert "falls over" in told["lines"][0]
    problem(service.client.get(f"/v1/sleeps/{sleep}/logs", params={"attempt": 2}), 422, "validation_failed")
    service.launcher.unreachable = True
    problem(service.client.get(f"/v1/sleeps/{sleep}/logs"), 503, "ray_unavailable")


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("text/markdown", "markdown"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "html"),
        ("text/html;q=0.1, text/markdown;q=0.9", "markdown"),
        ("text/html;q=0, application/json;q=0.5", "json"),
        ("text/html;q=nonsense", "json"),
        ("image/png", "json"),
    ],
)
def test_the_report_comes_in_the_format_that_is_liked_most(accept: str, format: str) -> None:
    assert preferred(accept) == format


def test_a_report_tells_inputs_gates_forgetting_cost_and_lineage(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    problem(service.client.get(f"/v1/sleeps/{sleep}/report", headers={"Accept": "text/html"}), 409, "report_not_ready")
    told = ended(service, sleep, night)
    report = service.client.get(f"/v1/sleeps/{sleep}/report").json()
    assert (report["inputs"]["experiences"], report["inputs"]["tokens"], report["inputs"]["held_out"]) == (1, 8, 1)
    gates = {gate["name"]: (gate["passed"], gate["value"], gate["limit"]) for gate in report["gates"]}
    assert (gates["agreement"], gates["forgotten"], gates["taught"]) == ((True, 0.9, 0.7), (False, 0.2, 0.1), (None, None, 0.7))
    assert report["forgetting"] == {"forgotten": 0.2, "lost": 0.0, "nll_rise": 0.1}
    assert report["before_after"] == [{"transfer": "level-1", "loss_before": 2.0, "loss_after": 0.5, "steps": 300}]
    assert report["cost"]["wall_seconds"] == told["spent"]["wall_seconds"]
    assert (report["lineage"]["parent"], report["lineage"]["version"]) == (told["parent_version"], None)
    assert len(report["config"]["sha256"]) == 64
    assert report["gate"] == GATE, "what the night reported is there as it was"


class Page(HTMLParser):
    """The tags of a page, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.refers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [name for name, _ in attrs if name in ("src", "href", "srcset", "action") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_as_a_page_needs_nothing_else_and_runs_nothing(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    ended(service, sleep, night)
    answer = service.client.get(f"/v1/sleeps/{sleep}/report", headers={"Accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page()
    page.feed(answer.text)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert page.refers == []
    assert "url(" not in answer.text
    assert "<script>alert(1)</script>" in page.text, "it is there as text"
    assert {"h1", "h2", "table"} <= set(page.tags)


def test_a_report_as_markdown_says_the_same_and_keeps_signs_as_signs(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    ended(service, sleep, night)
    answer = service.client.get(f"/v1/sleeps/{sleep}/report", headers={"Accept": "text/markdown"})
    assert answer.headers["content-type"].startswith("text/markdown")
    text = answer.text
    for title in ("Inputs", "Configuration", "Gates", "Before and after", "Forgetting", "Cost", "Lineage"):
        assert f"\n## {title}\n" in text
    assert "\\<script\\>" in text
    assert "\\| \\*\\*bold\\*\\*" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert tables
    for rows in tables:
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1, "every row has as many cells"


def test_a_promoted_nights_report_names_what_it_wrote(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    told = ended(service, sleep, night, "candidate")
    report = service.client.get(f"/v1/sleeps/{sleep}/report").json()
    assert report["lineage"]["version"] == told["result_version"]
    assert report["lineage"]["written"] == [], "the version of this test has no experts"
