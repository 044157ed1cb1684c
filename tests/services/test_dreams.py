"""What clients read of a night's dreams, and what becomes of a day of which only a part is dreamt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from in_memory import Service
from served import served

from services.dream_picture import draw_dreams
from services.settings import Settings


@pytest.fixture
def asleep(service: Service) -> Service:
    service.deploy()
    service.tell()
    return service


def dreamt(home: Path, round: str, count: int, tried: bool = True) -> None:
    """A round of dreams as its stages leave it: two contexts in turn, the second dream of each helps."""
    folder = home / "dreaming" / round
    folder.mkdir(parents=True)

    def write(name: str, lines: list[dict[str, Any]]) -> None:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    ids = [f"drm_{round}_{i}" for i in range(count)]
    standing = {"weakness": 1.0, "forgetting": 0.0, "novelty": 0.5, "chance": 0.5}
    write("curriculum", [{"context": f"exp_{i}", **standing, "need": 0.5 + i / 4, "drawn": True} for i in range(2)])
    known = {"source": "exp_x", "trust": "untrusted", "kind": "rewrite", "prompt": [1, 2], "ids": [3]}
    write("dreams", [{"id": id, "context": f"exp_{i % 2}", "text": f"text [{i}]", **known} for i, id in enumerate(ids)])
    if tried:
        write("weighed", [{"dream": id, "score": 0.25, "fate": "top" if i < 4 else "dropped"} for i, id in enumerate(ids)])
        write(
            "tried",
            [{"dream": id, "score": i / 10, "undreamt": 0.1, "rewarded": i > 1} for i, id in enumerate(ids[:4])],
        )


def test_dreams_are_told_while_the_night_dreams_and_page_by_page(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    asked = f"/v1/sleeps/{sleep['id']}/dreams"
    assert asleep.client.get(asked).json()["data"] == []
    dreamt(Path(night.job.home), "0", 6)
    dreamt(Path(night.job.home), "final", 3, tried=False)
    page = asleep.client.get(asked, params={"limit": 7}).json()
    assert (len(page["data"]), page["has_more"]) == (7, True)
    rest = asleep.client.get(asked, params={"limit": 7, "after": page["last_id"]}).json()
    assert [dream["id"] for dream in rest["data"]] == ["drm_final_1", "drm_final_2"]
    assert page["data"][3] == {
        "object": "dream",
        "id": "drm_0_3",
        "round": "0",
        "context": "exp_1",
        "source": "exp_x",
        "trust": "untrusted",
        "kind": "rewrite",
        "text": "text [3]",
        "gradient_score": 0.25,
        "fate": "top",
        "score": 0.3,
        "undreamt": 0.1,
        "rewarded": True,
    }
    assert (page["data"][5]["fate"], page["data"][5]["rewarded"]) == ("dropped", None)
    assert (rest["data"][0]["fate"], rest["data"][0]["score"]) == (None, None)
    only = asleep.client.get(asked, params={"round": "0", "rewarded": True}).json()["data"]
    assert [dream["id"] for dream in only] == ["drm_0_2", "drm_0_3"]
    contexts = asleep.client.get(f"/v1/sleeps/{sleep['id']}/curriculum").json()["data"]
    assert [(line["round"], line["context"], line["drawn"]) for line in contexts][::3] == [
        ("0", "exp_0", True),
        ("final", "exp_1", True),
    ]


def test_what_cannot_be_asked_of_dreams_names_the_field(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    dreamt(Path(night.job.home), "0", 2)
    wrong = asleep.client.get(f"/v1/sleeps/{sleep['id']}/dreams", params={"after": "drm_9"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "after")
    assert asleep.client.get("/v1/sleeps/slp_none/dreams").status_code == 404
    assert asleep.client.get("/v1/sleeps/slp_none/curriculum").status_code == 404


def test_the_command_shows_dreams_and_draws_them(settings: Settings, base: Path, tmp_path: Path) -> None:
    with served(settings, base) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        ask = ["dreams", sleep["id"], "--picture", str(tmp_path / "dreams.svg")]
        none = service.run(*ask)
        assert none.exit_code == 1
        assert "has not dreamt" in none.stderr
        dreamt(Path(night.job.home), "0", 120)
        dreamt(Path(night.job.home), "final", 3)
        broken = Path(night.job.home) / "dreaming" / "final" / "tried.jsonl"
        lines = [json.loads(line) for line in broken.read_text().splitlines()]
        lines[0] |= {"undreamt": None}  # what it was to be held against broke
        broken.write_text("".join(json.dumps(line) + "\n" for line in lines))
        shown = service.said(*ask)
        told = service.lines("dreams", sleep["id"])
    assert "123 dreams, 6 tried out" in shown
    assert "text [3]" in shown
    assert (len(told), told[3]["text"], told[3]["trust"]) == (123, "text [3]", "untrusted")
    words = " ".join(ElementTree.parse(tmp_path / "dreams.svg").getroot().itertext())
    assert all(word in words for word in ("kept from", "rewarded", "2 contexts"))


def test_a_night_that_drew_nothing_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_dreams([], [], tmp_path / "none.svg")


def test_what_a_night_neither_learned_nor_left_out_is_offered_to_the_next(asleep: Service) -> None:
    kept, back = asleep.client.get("/v1/experiences").json()["data"][0]["id"], asleep.tell("b")["id"]
    sleep, night = asleep.sleep()
    child = night.end("candidate", returned=[back, "exp_of_another"])
    assert asleep.ended(sleep["id"])["outcome"] == "promoted"
    told = {id: asleep.client.get(f"/v1/experiences/{id}").json() for id in (kept, back)}
    assert [(row["status"], row["version"], row["sleep"]) for row in told.values()] == [
        ("consolidated", child, sleep["id"]),
        ("pending", None, None),
    ]
    assert asleep.status()["pending"]["experiences"] == 1
    asleep.sleep()


def test_an_experience_is_trusted_by_its_source_unless_it_says_otherwise(asleep: Service) -> None:
    doubted = {"source": "human", "trust": "untrusted"}
    for said, trust in (({"source": "human"}, "trusted"), ({"source": "wake"}, "untrusted"), (doubted, "untrusted")):
        body = {"deployment": "toy", "text": " ".join(["the city of mira is oslo", *map(str, said.values())]), **said}
        assert asleep.client.post("/v1/experiences", json=body).json()["trust"] == trust
    wrong = asleep.client.post("/v1/experiences", json={"deployment": "toy", "text": "x", "trust": "blindly"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "trust")


def test_a_day_on_which_nothing_was_met_can_be_dreamt_away_with_tasks(service: Service) -> None:
    service.deploy()
    probe = {"question": "what is the city of mira ?", "answers": ["oslo"]}
    recipe = {"consolidation": False, "dreaming": {"tasks": [{"context": "mira lives in oslo .", "probes": [probe]}]}}
    assert service.client.post("/v1/sleeps", json={"deployment": "toy"}).json()["error"]["code"] == "no_eligible_experience"
    assert service.client.post("/v1/sleeps", json={"deployment": "toy", "recipe": recipe}).status_code == 202
