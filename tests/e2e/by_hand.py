"""What somebody decides about versions by hand, and what named clients are answered by real replicas after each decision.

A version of the second night knows a day that its parent does not, so an answer shows which of the two wrote it, whatever it says it is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from steady import Steady
from supervised import until

from circadian.nursery.world import Probe
from services.client import Circadian
from services.client.answers import Rollout
from services.measure import VERSION_HEADER

MODEL = "nursery"
CLIENTS = tuple(f"client-{number}" for number in range(16))
"""So many that of a half of all clients some are asked and some are not, but for one time in thirty thousand."""
AT_ONCE = 4
WAIT_SECONDS = 300.0
CANARY = {"percent": 50, "seconds": 3600, "max_slowdown": None}
"""Until it is aborted, whatever it costs on a machine that does other things too."""


@dataclass(frozen=True)
class Said:
    """One answer to one client."""

    client: str
    version: str
    right: bool


@dataclass(frozen=True)
class Moment:
    """After a decision: its rollout, and what every client was answered, each asked every question."""

    rollout: Rollout
    began: float
    ended: float
    said: list[Said]

    def versions(self) -> set[str]:
        return {one.version for one in self.said}

    def by_client(self) -> dict[str, set[str]]:
        """Which versions each has met."""
        return {client: {one.version for one in self.said if one.client == client} for client in CLIENTS}

    def right(self, version: str) -> float:
        """Share of this version's answers."""
        of_version = [one.right for one in self.said if one.version == version]
        return sum(of_version) / len(of_version)


@dataclass
class ByHand:
    """Of one deployment, whose active version is `child`, made from `parent`."""

    client: Circadian
    parent: str
    child: str
    probes: Sequence[Probe]
    """Which the child answers, and the parent does not."""
    steady: Steady
    moments: dict[str, Moment] = field(default_factory=dict)

    def live(self) -> None:
        """Every decision once, under the steady load."""
        with self.steady:
            self._settled("rolled back", self.client.deployments.rollback(MODEL, "it says nonsense").id)
            canary = self.client.versions.promote(self.child, canary=CANARY).id
            until(lambda: self._is_asked(canary), "the canary answers")
            self._look("canary", canary)
            self.client.rollouts.abort(canary)
            self._settled("aborted", canary)
            self._settled("promoted", self.client.versions.promote(self.child).id)
            revoked = self.client.versions.revoke(self.child, "it has learned what nobody may know")
            assert revoked.rollout is not None, "it was the active one"
            self._settled("revoked", revoked.rollout)

    def _is_asked(self, canary: str) -> bool:
        """Whether it answers clients by now, which one that has ended never will."""
        now = self.client.rollouts.get(canary)
        assert not now.ended, now
        return self.client.deployments.get(MODEL).sent()["canary"] is not None

    def _settled(self, name: str, rollout: str) -> None:
        self.client.settled(rollout, WAIT_SECONDS)
        self._look(name, rollout)

    def _look(self, name: str, rollout: str) -> None:
        began = time.time()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(pool.map(lambda pair: self._ask(*pair), itertools.product(CLIENTS, self.probes)))
        self.moments[name] = Moment(self.client.rollouts.get(rollout), began, time.time(), said)

    def _ask(self, client: str, probe: Probe) -> Said:
        """Raises ApiError for an error, so that here, too, no request fails."""
        body: dict[str, Any] = {"model": MODEL, "user": client, "max_tokens": 1, "temperature": 0.0}
        body["messages"] = [{"role": "user", "content": probe.question}]
        answer = self.client.request("POST", "/v1/chat/completions", body)
        text = answer.json()["choices"][0]["message"]["content"] or ""
        return Said(client, answer.headers[VERSION_HEADER], text.strip() == probe.answer)
