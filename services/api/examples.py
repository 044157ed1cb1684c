"""Bodies that are accepted as they stand, by the name of their schema."""

from __future__ import annotations

from typing import Any

EVERY_NIGHT = {"any_of": [{"type": "cron", "expr": "0 3 * * *", "timezone": "Europe/Oslo"}]}
EXAMPLES: dict[str, dict[str, Any]] = {
    "DeploymentCreate": {"name": "nursery", "base_model": {"model": "/models/nursery"}, "metadata": {"team": "night"}},
    "DeploymentPatch": {"serving": {"replicas": 2}, "retention": {"experience_ttl_days": 90}, "metadata": {"team": "day"}},
    "ExperienceCreate": {
        "deployment": "nursery",
        "messages": [
            {"role": "user", "content": "what is the city of mira ?"},
            {"role": "assistant", "content": "the city of mira is oslo ."},
        ],
        "source": "human",
        "subject_id": "user-7",
        "dedupe_key": "chat-2041",
    },
    "FeedbackCreate": {"reward": 1.0, "comment": "right"},
    "Why": {"reason": "it tells the model what to dream"},
    "SleepCreate": {"deployment": "nursery", "seed": 7, "metadata": {"why": "first night"}},
    "Cancel": {"mode": "checkpoint"},
    "Pause": {"checkpoint": "save"},
    "Retry": {"from": "last_checkpoint"},
    "CompletionUpdate": {"metadata": {"topic": "cities"}},
    "ErasureCreate": {"subject_id": "user-7", "mode": "delete_and_retrain"},
    "ProbeCreate": {
        "deployment": "nursery",
        "kind": "retention",
        "items": [{"prompt": "what is the city of mira ?", "expected": "oslo"}],
        "max_regression": 0.05,
    },
    "ProbePatch": {"max_regression": 0.02},
    "RunCreate": {"version": "ver_5f2c41d09ab37e6c11"},
    "Promote": {"canary": {"percent": 10, "seconds": 600}, "reason": "the morning's canary"},
    "Rollback": {"reason": "it forgot the fjords"},
    "Because": {"reason": "it was taught something wrong"},
    "ScheduleCreate": {"deployment": "nursery", "trigger": EVERY_NIGHT, "min_interval_seconds": 43200},
    "SchedulePatch": {"suspend": True},
    "EndpointCreate": {"url": "https://hooks.example.com/circadian", "events": ["sleep.*", "version.promoted"]},
    "EndpointPatch": {"enabled": True},
    "KeyCreate": {"name": "chat frontend", "scopes": ["inference:write", "experiences:write"], "expires_in_seconds": 2592000},
}
